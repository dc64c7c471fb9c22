from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from retfound_dist.config import load as load_config
from retfound_dist.errors import ConfigError
from retfound_dist.evaluate import wording
from retfound_dist.evaluate.compare import compare_command
from retfound_dist.evaluate.dataset import load
from retfound_dist.evaluate.finetune import Outcome
from retfound_dist.evaluate.subset import places, with_labels
from retfound_dist.evaluate.tuning import tune
from retfound_dist.schema import EvalData, EvaluateConfig, Finetune
from tests.evaluate.inputs import TINY, class_folders, list_patients

SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)


def test_a_smaller_share_lies_in_every_larger_one_and_every_class_keeps_its_share() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(300), 2)
    labels = rng.choice(4, 300, p=[0.6, 0.25, 0.13, 0.02])[units]
    before: set[int] = set()
    for share in SHARES:
        kept = places(labels, units, share, seed=5)
        assert before <= set(kept)
        before = set(kept)
        for label in range(4):
            n = (labels == label).sum()
            assert (labels[kept] == label).sum() == max(1, round(share * n))
    assert len(before) == 600
    few = places(labels, units, 0.25, seed=5)
    halves = len(np.unique(units[few])) / len(few)
    assert halves < 0.53  # both images of a patient come together, but for one patient a class
    assert not np.array_equal(few, places(labels, units, 0.25, seed=6))


def test_only_train_shrinks_and_the_set_is_told_from_the_whole(tmp_path: Path) -> None:
    data = load(EvalData(path=str(class_folders(tmp_path))), 28)
    some = with_labels(data, 0.5, 0)
    assert len(some.parts["train"]) == len(data.parts["train"]) // 2
    assert some.parts["test"] is data.parts["test"]
    assert some.fingerprint != data.fingerprint
    assert with_labels(data, 1.0, 0) is data
    kept = [data.parts["train"].keys.index(key) for key in some.parts["train"].keys]
    np.testing.assert_array_equal(some.parts["train"].labels, data.parts["train"].labels[kept])
    assert all(some.parts["train"].images[i] is data.parts["train"].images[k] for i, k in enumerate(kept))


def test_the_recipe_with_the_best_validation_is_kept_and_its_run_is_the_first_seeds() -> None:
    found = {1e-3: 0.6, 1e-2: 0.8, 1e-1: None}
    menu = ({"base_lr": 1e-3}, {"base_lr": 1e-2, "crop_scale": [0.2, 1.0]}, {"base_lr": 1e-1})
    runs = []

    def run(recipe: Finetune) -> tuple[Outcome, str]:
        runs.append(recipe.base_lr)
        history = [{"val_auroc": None}, {"val_auroc": found[recipe.base_lr]}]
        return Outcome(0, history, 2, np.zeros((1, 2))), f"model of {recipe.base_lr}"

    best = tune(Finetune(epochs=7, try_recipes=menu), run)
    assert runs == list(found)
    assert best.recipe == Finetune(epochs=7, base_lr=1e-2, crop_scale=(0.2, 1.0))
    assert best.model == "model of 0.01"
    assert best.change == menu[1]
    assert best.tried == [
        {"recipe": change, "val_auroc": value} for change, value in zip(menu, found.values(), strict=True)
    ]
    said = wording.tuning(best.change, best.tried)
    assert said.startswith("base_lr=0.01 crop_scale=[0.2, 1.0] (val AUROC 0.800), ahead of base_lr=0.001 (val AUROC")
    assert said.endswith("base_lr=0.1 (val AUROC -)")
    plain = tune(Finetune(base_lr=1e-3), run)
    assert plain.tried == []
    assert plain.recipe == Finetune(base_lr=1e-3)


@pytest.mark.parametrize(
    ("menu", "said"),
    [
        ("[{base_lr=1e-3}, {layer_decay=2}]", r"finetune.try_recipes\[1\]: layer_decay=2 should be less than"),
        ("[{rate=1e-3}]", r"finetune.try_recipes\[0\]: unknown key rate"),
        ("[{try_recipes=[]}]", "lies within itself"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_before_anything_runs(menu: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(EvaluateConfig, "configs/evaluate_octid.toml", [f"finetune.try_recipes={menu}"])


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shares")
    class_folders(root / "set", each=16)
    list_patients(root / "set")
    (root / "compare.toml").write_text(
        f'[weights]\nnone = "none"\nother = "none"\n[data]\npath = "{root / "set"}"\n'
        f'[out]\nurl = "{root / "out"}"\n'
    )
    run(root)
    return root


def run(root: Path, *overrides: str) -> None:
    shares = ["label_shares=[0.1, 0.5, 1.0]", "finetune.epochs=1", "finetune.try_recipes=[{base_lr=1e-3}, {base_lr=1e-2}]"]
    assert compare_command(str(root / "compare.toml"), [*TINY, *shares, *overrides], quiet=True) == 0


def test_all_rows_are_compared_at_every_share_on_the_same_test_images(compared: Path) -> None:
    tree = json.loads((compared / "out" / "compare.json").read_text())
    entries = tree["label_efficiency"]
    assert [entry["share"] for entry in entries] == [0.1, 0.5, 1.0]
    assert [entry["train"] for entry in entries] == sorted(entry["train"] for entry in entries)
    assert all(entry["rows"].keys() == {"none", "other"} for entry in entries)
    assert any(s.startswith("With 10 % of the labels") for s in tree["sentences"])
    splits = []
    for share in ("labels_0.1/", "labels_0.5/", ""):
        metrics = json.loads((compared / "out" / f"{share}none" / "metrics.json").read_text())
        assert [line["recipe"] for line in metrics["tuning"]["tried"]] == [{"base_lr": 1e-3}, {"base_lr": 1e-2}]
        lines = (compared / "out" / f"{share}none" / "split.csv").read_text().splitlines()
        splits.append({part: {x.split(",")[0] for x in lines if x.endswith(part)} for part in ("train", "test")})
    assert splits[0]["train"] < splits[1]["train"] < splits[2]["train"]
    assert splits[0]["test"] == splits[1]["test"] == splits[2]["test"]
    page = (compared / "out" / "report.html").read_text()
    assert "Label efficiency, fine-tuned" in page
    assert "Label efficiency, linear probe" in page
    assert "Recipe chosen by val, “other”" in page
    assert "the same recipes to choose from for each" in page


def test_shares_that_are_there_are_not_run_again(compared: Path) -> None:
    files = sorted((compared / "out").rglob("metrics.json"))
    stamps = [file.stat().st_mtime_ns for file in files]
    assert len(files) == 6
    run(compared)
    assert [file.stat().st_mtime_ns for file in files] == stamps


def test_rows_side_by_side_are_the_same_rows(compared: Path) -> None:
    alone = json.loads((compared / "out" / "compare.json").read_text())["label_efficiency"]
    run(compared, "jobs=2", "threads=2", f"out.url={compared / 'beside'}")
    beside = json.loads((compared / "beside" / "compare.json").read_text())["label_efficiency"]
    for a, b in zip(alone, beside, strict=True):
        for name in a["rows"]:
            assert b["rows"][name]["macro"]["aupr"] == pytest.approx(a["rows"][name]["macro"]["aupr"], abs=1e-3)
