from __future__ import annotations

import numpy as np
import pytest

from retfound_dist.config.loading import load
from retfound_dist.config.schema import EvaluateConfig, Finetune
from retfound_dist.errors import ConfigError
from retfound_dist.evaluate.finetune.finetuning import FinetuneResult
from retfound_dist.evaluate.finetune.recipe_search import tune
from retfound_dist.evaluate.scores import wording


def test_the_recipe_with_the_best_validation_is_kept_and_its_run_is_the_first_seeds() -> None:
    found = {1e-3: 0.6, 1e-2: 0.8, 1e-1: None}
    menu = ({"base_lr": 1e-3}, {"base_lr": 1e-2, "crop_scale": [0.2, 1.0]}, {"base_lr": 1e-1})
    runs = []

    def run(recipe: Finetune) -> tuple[FinetuneResult, str]:
        runs.append(recipe.base_lr)
        history = [{"val_auroc": None}, {"val_auroc": found[recipe.base_lr]}]
        return FinetuneResult(0, history, 2, np.zeros((1, 2))), f"model of {recipe.base_lr}"

    best = tune(Finetune(epochs=7, try_recipes=menu), run)
    assert runs == list(found)
    assert best.recipe == Finetune(epochs=7, base_lr=1e-2, crop_scale=(0.2, 1.0))
    assert best.model == "model of 0.01"
    assert best.recipe_change == menu[1]
    assert best.tried_recipes == [
        {"recipe": change, "val_auroc": value} for change, value in zip(menu, found.values(), strict=True)
    ]
    said = wording.describe_tuning(best.recipe_change, best.tried_recipes)
    assert said.startswith(
        "base_lr=0.01 crop_scale=[0.2, 1.0] (val AUROC 0.800); also tried: base_lr=0.001 (val AUROC"
    )
    assert said.endswith("base_lr=0.1 (val AUROC -)")
    plain = tune(Finetune(base_lr=1e-3), run)
    assert plain.tried_recipes == []
    assert plain.recipe == Finetune(base_lr=1e-3)


@pytest.mark.parametrize(
    ("menu", "said"),
    [
        ("[{base_lr=1e-3}, {layer_decay=2}]", "finetune.try_recipes.1.layer_decay=2 should be less than"),
        ("[{rate=1e-3}]", "unknown key finetune.try_recipes.0.rate"),
        ("[{try_recipes=[]}]", "has a table with try_recipes"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_before_anything_runs(menu: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(EvaluateConfig, "configs/evaluate_octid.toml", [f"finetune.try_recipes={menu}"])
