"""Settings of fine-tuning against the recipe they come from."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from retfound_dist.config.schema import Finetune, finetune_settings
from tests.config.schema.docstrings import without_docstring


def test_every_setting_has_a_docstring() -> None:
    assert without_docstring(finetune_settings) == []


def test_fine_tuning_is_retfounds_recipe() -> None:
    recipe = Finetune()
    assert (recipe.batch, recipe.epochs, recipe.warmup_epochs) == (16, 50, 10)
    assert (recipe.base_lr, recipe.min_lr, recipe.layer_decay) == (5e-3, 1e-6, 0.65)
    assert (recipe.weight_decay, recipe.drop_path, recipe.label_smoothing) == (0.05, 0.2, 0.1)
    assert (recipe.randaugment, recipe.random_erasing) == ("rand-m9-mstd0.5-inc1", 0.25)
    assert (recipe.mixup, recipe.cutmix) == (0, 0)


def test_a_change_of_a_recipe_changes_these_settings_alone() -> None:
    recipe = Finetune(epochs=7, try_recipes=({"base_lr": 1e-3},))
    changed = recipe.with_change({"base_lr": 1e-3})
    assert changed == Finetune(epochs=7, base_lr=1e-3)
    assert recipe.base_lr == 5e-3


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"epoch": 5}, {"try_recipes": []}, {"layer_decay": 1.5}, {"class_weights": "x"}]
)
def test_an_unsound_change_is_refused_with_the_config_and_not_hours_later(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        Finetune(try_recipes=(change,))
