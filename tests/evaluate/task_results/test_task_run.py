"""An evaluation of a task: learned where the answer is in the image, and nothing is passed over silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.evaluate.tasks_made import bright_list, evaluated_task

LEARN = (
    "finetune.epochs=12", "finetune.warmup_epochs=1", "finetune.base_lr=0.02", "finetune.crop_scale=[0.8, 1.0]",
    "finetune.random_erasing=0.0", "finetune.randaugment=''", "finetune.drop_path=0.0",
)  # fmt: skip


def test_a_number_that_the_image_shows_is_learned(tmp_path: Path) -> None:
    bright_list(tmp_path / "set", images=60)
    out = evaluated_task(tmp_path, "regression", *LEARN)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["scores"]["concordance"] > 0.8
    assert metrics["scores"]["mae"] < 0.7 * metrics["per_target"]["age"]["mae_of_median"]
    assert metrics["ci95"]["mae"][0] <= metrics["scores"]["mae"] <= metrics["ci95"]["mae"][1]
    assert metrics["probe"]["linear"]["scores"]["r2"] is not None
    notes = " ".join(metrics["notes"])
    assert "finetune.label_smoothing=0.1 is not used" in notes
    assert "of probe.kinds, knn is only for classes" in notes


def test_seeds_are_averaged_and_their_spread_is_stored(tmp_path: Path) -> None:
    bright_list(tmp_path / "set")
    out = evaluated_task(
        tmp_path, "multilabel", "seeds=[0, 1]", "finetune.epochs=1", "probe.enabled=false", "finetune.keep=false"
    )  # fmt: skip
    metrics = json.loads((out / "metrics.json").read_text())
    assert [row["seed"] for row in metrics["per_seed"]] == [0, 1]
    assert metrics["over_seeds"]["log_loss"]["std"] == pytest.approx(
        abs(metrics["per_seed"][0]["scores"]["log_loss"] - metrics["per_seed"][1]["scores"]["log_loss"])
        / 2**0.5
    )
    assert metrics["unknown"] == {"cyst": 0, "fluid": 5}
    assert (out / "seed_predictions.csv").exists()
    assert not (out / "classifier").exists()
    assert "probe" not in metrics
