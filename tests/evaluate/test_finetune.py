from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from retfound_dist.evaluate.dataset import LabelledSet, load
from retfound_dist.evaluate.finetune import Outcome, finetune, make_classifier
from retfound_dist.model.cpu import has_bf16_instructions
from retfound_dist.model.mae import encoder_shape
from retfound_dist.model.weights import read_weights
from retfound_dist.schema import EvalData, Finetune
from tests.evaluate.inputs import checkpoint, class_folders, octid_folders

RECIPE = Finetune(epochs=3, batch=8, warmup_epochs=1.0, base_lr=2e-2, layer_decay=0.9)


def run(data: LabelledSet, seed: int = 0, recipe: Finetune = RECIPE) -> Outcome:
    model = make_classifier(None, encoder_shape("vit_demo_patch14"), 28, len(data.classes), 0.1, seed)
    return finetune(model, data, 28, recipe, seed, workers=0)


@pytest.fixture
def data(tmp_path: Path) -> LabelledSet:
    return load(EvalData(path=str(class_folders(tmp_path / "set"))), 28)


def test_the_same_seed_gives_the_same_outcome_and_another_one_does_not(data: LabelledSet) -> None:
    first, second, other = run(data), run(data), run(data, seed=1)
    assert (first.probabilities == second.probabilities).all()
    assert [r["train_loss"] for r in first.history] == [r["train_loss"] for r in second.history]
    assert (first.probabilities != other.probabilities).any()


def test_mixing_and_weights_change_the_outcome_and_keep_it_reproducible(data: LabelledSet) -> None:
    recipe = replace(RECIPE, mixup=0.8, cutmix=1.0, class_weights="balanced")
    first = run(data, recipe=recipe)
    assert (run(data, recipe=recipe).probabilities == first.probabilities).all()
    assert (run(data).probabilities != first.probabilities).any()


def test_bf16_is_nearly_fp32_and_auto_is_fp32_on_a_cpu(data: LabelledSet) -> None:
    exact = run(data, recipe=replace(RECIPE, precision="fp32")).probabilities
    rough = run(data, recipe=replace(RECIPE, precision="bf16")).probabilities
    assert (rough != exact).any() == (has_bf16_instructions() or torch.cuda.is_available())
    np.testing.assert_allclose(rough, exact, atol=0.05)
    if not torch.cuda.is_available():
        assert (run(data).probabilities == exact).all()


def test_probabilities_sum_to_one_and_history_has_every_field(data: LabelledSet) -> None:
    outcome = run(data)
    assert outcome.probabilities.shape == (6, 3)
    assert np.allclose(outcome.probabilities.sum(1), 1)
    assert [row["epoch"] for row in outcome.history] == [1, 2, 3]
    for row in outcome.history:
        assert {"seed", "train_loss", "lr", "val_loss", "val_auroc", "val", "seconds"} <= row.keys()
    best = max(outcome.history, key=lambda r: (r["val_auroc"], -r["val_loss"]))
    assert outcome.epoch == best["epoch"]


def test_the_global_random_state_does_not_change_the_outcome(data: LabelledSet) -> None:
    first = run(data)
    np.random.seed(99)
    torch.manual_seed(99)
    assert (run(data).probabilities == first.probabilities).all()


def test_a_class_missing_from_val_gives_null_scores_and_no_crash(tmp_path: Path) -> None:
    octid_folders(tmp_path)
    for file in (tmp_path / "val" / "MH").iterdir():
        file.unlink()
    outcome = run(load(EvalData(path=str(tmp_path)), 28))
    for row in outcome.history:
        assert row["val"]["auroc"] is None
        assert row["val"]["undefined"]["auroc"] == "no test image of class MH"
        assert 0 <= row["val_auroc"] <= 1


def test_checkpoint_weights_reach_the_classifier(tmp_path: Path) -> None:
    weights = read_weights(checkpoint(tmp_path, 3))
    model = make_classifier(weights, weights.shape, weights.image_size, 3, 0.0, 0)
    assert torch.equal(model.blocks[2].mlp.fc1.weight, weights.state["blocks.2.mlp.fc1.weight"])
    assert torch.equal(model.pos_embed, weights.state["pos_embed"])
