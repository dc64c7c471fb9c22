from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from retfound_dist.config.schema import EvalData, Finetune
from retfound_dist.errors import DataError
from retfound_dist.evaluate.data.labelled_set import ExternalSet, LabelledSet
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.finetune import finetuning
from retfound_dist.evaluate.finetune.finetuning import (
    FinetuneResult,
    best_device,
    finetune,
    predict,
    uses_bf16,
)
from retfound_dist.model.backbones.plain_vit import PlainVit
from retfound_dist.model.cpu_bf16 import has_bf16_instructions
from retfound_dist.model.mae import IMAGENET_MEAN, IMAGENET_STD, encoder_shape
from retfound_dist.model.positions import sincos_positions
from retfound_dist.model.weights.weight_files import read_weights
from tests.evaluate.finetune.plain_finetuning import plain_finetuning
from tests.evaluate.inputs import checkpoint, class_folders, octid_folders

BACKBONE = PlainVit(None, encoder_shape("vit_demo_patch14"), 28)
RECIPE = Finetune(epochs=3, batch=8, warmup_epochs=1.0, base_lr=2e-2, layer_decay=0.9)


def run(data: LabelledSet, seed: int = 0, recipe: Finetune = RECIPE) -> FinetuneResult:
    model = BACKBONE.build(len(data.classes), 0.1, seed)
    return finetune(model, BACKBONE, data, recipe, seed, workers=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> LabelledSet:
    return load_labelled_set(
        EvalData(path=str(class_folders(tmp_path_factory.mktemp("labelled") / "set"))), 28
    )


@pytest.fixture(scope="module")
def plain(data: LabelledSet) -> FinetuneResult:
    """The recipe with seed 0: each test that asks whether something changes it runs it once more itself."""
    return run(data)


def test_the_same_seed_gives_the_same_outcome_and_another_one_does_not(
    data: LabelledSet, plain: FinetuneResult
) -> None:
    first, second, other = plain, run(data), run(data, seed=1)
    assert (first.probabilities == second.probabilities).all()
    assert [r["train_loss"] for r in first.history] == [r["train_loss"] for r in second.history]
    assert (first.probabilities != other.probabilities).any()
    assert (first.seed, other.seed) == (0, 1)


def test_mixing_and_weights_change_the_outcome_and_keep_it_reproducible(
    data: LabelledSet, plain: FinetuneResult
) -> None:
    recipe = replace(RECIPE, mixup=0.8, cutmix=1.0, class_weights="balanced")
    first = run(data, recipe=recipe)
    assert (run(data, recipe=recipe).probabilities == first.probabilities).all()
    assert (plain.probabilities != first.probabilities).any()


def test_bf16_is_nearly_fp32_and_auto_is_fp32_on_a_cpu(data: LabelledSet, plain: FinetuneResult) -> None:
    exact = run(data, recipe=replace(RECIPE, precision="fp32")).probabilities
    rough = run(data, recipe=replace(RECIPE, precision="bf16")).probabilities
    assert (rough != exact).any() == (has_bf16_instructions() or torch.cuda.is_available())
    np.testing.assert_allclose(rough, exact, atol=0.05)
    if not torch.cuda.is_available():
        assert (plain.probabilities == exact).all()


def test_probabilities_sum_to_one_and_history_has_every_field(plain: FinetuneResult) -> None:
    outcome = plain
    assert outcome.probabilities.shape == (6, 3)
    assert np.allclose(outcome.probabilities.sum(1), 1)
    assert [row["epoch"] for row in outcome.history] == [1, 2, 3]
    for row in outcome.history:
        assert {"seed", "train_loss", "lr", "val_loss", "val_auroc", "val", "seconds"} <= row.keys()
    best = max(outcome.history, key=lambda r: (r["val_auroc"], -r["val_loss"]))
    assert outcome.chosen_epoch == best["epoch"]


def test_the_global_random_state_does_not_change_the_outcome(
    data: LabelledSet, plain: FinetuneResult
) -> None:
    np.random.seed(99)
    torch.manual_seed(99)
    assert (run(data).probabilities == plain.probabilities).all()


def test_a_class_missing_from_val_gives_null_scores_and_no_crash(tmp_path: Path) -> None:
    octid_folders(tmp_path)
    for file in (tmp_path / "val" / "MH").iterdir():
        file.unlink()
    outcome = run(load_labelled_set(EvalData(path=str(tmp_path)), 28))
    for row in outcome.history:
        assert row["val"]["auroc"] is None
        assert row["val"]["undefined"]["auroc"] == "class MH does not occur"
        assert 0 <= row["val_auroc"] <= 1


def test_checkpoint_weights_reach_the_classifier(tmp_path: Path) -> None:
    weights = read_weights(checkpoint(tmp_path, 3))
    model: Any = PlainVit(lambda: weights, weights.shape, weights.image_size).build(3)
    assert torch.equal(model.blocks[2].mlp.fc1.weight, weights.state["blocks.2.mlp.fc1.weight"])
    assert torch.equal(model.pos_embed, weights.state["pos_embed"])


@pytest.mark.parametrize(("erasing", "mixup"), [(0.0, 0.0), (1.0, 0.0), (0.0, 0.8)])
def test_training_is_the_papers_recipe_written_out(data: LabelledSet, erasing: float, mixup: float) -> None:
    """Layer decay, warm-up and cosine, weight decay, smoothing, erasing, mixing; a last batch that is smaller."""
    recipe = replace(
        RECIPE, epochs=2, batch=7, warmup_epochs=1.5, layer_decay=0.5, random_erasing=erasing, mixup=mixup,
        weight_decay=0.3,
    )  # fmt: skip
    assert len(data.parts["train"]) % recipe.batch
    ours, plain = (BACKBONE.build(3, 0.4, seed=4) for _ in range(2))
    states: list[dict[str, torch.Tensor]] = []
    outcome = finetune(
        ours, BACKBONE, data, recipe, 4, workers=0,
        on_epoch=lambda _: states.append({n: t.clone() for n, t in ours.state_dict().items()}),
    )  # fmt: skip
    first = {n: p.detach().clone() for n, p in plain.named_parameters()}
    losses, rates = plain_finetuning(plain, data, recipe, seed=4)
    assert [row["train_loss"] for row in outcome.history] == pytest.approx(losses, rel=1e-5)
    assert [row["lr"] for row in outcome.history] == pytest.approx(rates, rel=1e-9)
    for name, value in plain.named_parameters():
        moved = (value - first[name]).norm()
        assert moved > 0, name
        assert (states[-1][name] - value).norm() < 2e-3 * moved, name


def test_the_test_part_is_predicted_by_the_epoch_that_val_chose_and_not_by_the_last(
    data: LabelledSet,
) -> None:
    """Val's labels are rotated, so that the better the training, the worse val: an early epoch is chosen."""
    val = data.parts["val"]
    turned = replace(val, labels=(val.labels + 1) % 3)
    model = BACKBONE.build(3, 0.1)
    each: list[np.ndarray] = []
    recipe = replace(RECIPE, epochs=4)
    outcome = finetune(
        model, BACKBONE, replace(data, parts={**data.parts, "val": turned}), recipe, 0, workers=0,
        on_epoch=lambda _: each.append(predict(model, BACKBONE, data.parts["test"], recipe)),
    )  # fmt: skip
    assert len(each) == 4
    assert outcome.chosen_epoch < 4
    assert (outcome.probabilities == each[outcome.chosen_epoch - 1]).all()
    assert (outcome.probabilities != each[-1]).any()
    assert (predict(model, BACKBONE, data.parts["test"], recipe) == outcome.probabilities).all()


def test_an_external_set_is_predicted_by_the_chosen_epoch_too(
    data: LabelledSet, plain: FinetuneResult
) -> None:
    other = replace(data.parts["val"], images=data.parts["val"].images[::-1])
    none = {field.name: () for field in fields(ExternalSet)}  # only its images matter here
    external = ExternalSet(**{**none, "path": "elsewhere", "part": other})  # type: ignore[arg-type]
    model = BACKBONE.build(3, 0.1)
    outcome = finetune(model, BACKBONE, replace(data, external=external), RECIPE, 0, workers=0)
    assert outcome.external_probabilities is not None
    assert (outcome.external_probabilities == predict(model, BACKBONE, other, RECIPE)).all()
    assert plain.external_probabilities is None


def test_without_a_val_part_the_last_epoch_is_kept(data: LabelledSet) -> None:
    val = data.parts["val"]
    none = replace(val, keys=(), labels=val.labels[:0], patients=(), images=())
    outcome = run(replace(data, parts={**data.parts, "val": none}))
    assert outcome.chosen_epoch == 3
    assert [(row["val_loss"], row["val_auroc"], row["val"]) for row in outcome.history] == [
        (None, None, None)
    ] * 3


def test_val_scores_are_those_of_the_predictions_after_each_epoch(data: LabelledSet) -> None:
    val = data.parts["val"]
    model = BACKBONE.build(3, 0.1)
    rows: list[dict[str, object]] = []

    def look(row: dict[str, object]) -> None:
        p = predict(model, BACKBONE, val, RECIPE)
        auroc = np.mean([sk.roc_auc_score(val.labels == c, p[:, c]) for c in range(3)])
        rows.append({"val_loss": -np.log(p[np.arange(len(val)), val.labels]).mean(), "val_auroc": auroc})
        assert row["val"]["auroc"] == pytest.approx(auroc)  # type: ignore[index]

    outcome = finetune(model, BACKBONE, data, RECIPE, 0, workers=0, on_epoch=look)
    for found, expected in zip(outcome.history, rows, strict=True):
        assert {name: found[name] for name in expected} == pytest.approx(expected)
        assert 0 <= found["seconds"] < 60


def test_many_images_are_predicted_as_each_would_be_alone(data: LabelledSet) -> None:
    test = data.parts["test"]
    many = replace(
        test,
        keys=test.keys * 23,
        labels=np.tile(test.labels, 23),
        patients=test.patients * 23,
        images=test.images * 23,
    )
    assert len(many) > 2 * 64
    model = BACKBONE.build(3, 0.5).train()
    torch.nn.init.normal_(model.head.weight)
    model.eval()
    alone = []
    for image in test.images:
        grey = (torch.from_numpy(image).float() / 255)[None, None].expand(-1, 3, -1, -1)
        mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        with torch.no_grad():
            alone.append(model((grey - mean) / std).double().softmax(1).numpy()[0])
    model.train()
    found = predict(model, BACKBONE, many, RECIPE)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.tile(alone, (23, 1)), rtol=1e-5, atol=1e-7)


def test_progress_counts_the_steps_of_all_epochs(data: LabelledSet) -> None:
    model, steps = BACKBONE.build(3, 0.1), []
    finetune(
        model,
        BACKBONE,
        data,
        replace(RECIPE, epochs=2),
        0,
        0,
        on_step=lambda done, of: steps.append((done, of)),
    )
    each = math.ceil(len(data.parts["train"]) / 8)
    assert steps == [(i + 1, 2 * each) for i in range(2 * each)]


def test_a_training_that_diverges_ends_with_the_rate_that_is_too_high(data: LabelledSet) -> None:
    """Seen by the loss, or after an epoch's last step by the predictions for val."""
    recipe = replace(RECIPE, base_lr=1e30, warmup_epochs=0.0, epochs=2)
    with pytest.raises(DataError, match=r"loss became nan in epoch 1: lower finetune\.base_lr=1e\+30"):
        run(data, recipe=recipe)
    with pytest.raises(DataError, match=r"values that are not finite: lower finetune\.base_lr=1e\+30"):
        run(data, recipe=replace(recipe, batch=64))


def test_without_weights_the_classifier_starts_from_the_seeds_noise_and_sin_cos_positions() -> None:
    shape = encoder_shape("vit_demo_patch14")
    first, same, other = (PlainVit(None, shape, 56).build(3, 0.0, seed) for seed in (0, 0, 1))
    assert torch.equal(first.pos_embed, sincos_positions(shape.width, (4, 4)))
    assert torch.equal(first.blocks[0].attn.qkv.weight, same.blocks[0].attn.qkv.weight)
    assert not torch.equal(first.blocks[0].attn.qkv.weight, other.blocks[0].attn.qkv.weight)
    assert first.pos_embed.requires_grad


def test_blocks_are_dropped_as_often_as_the_recipe_says_the_deepest_most() -> None:
    model = BACKBONE.build(3, 0.4)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in model.blocks]
    assert rates == pytest.approx(np.linspace(0, 0.4, len(rates)).tolist())


def test_products_are_in_bf16_on_a_gpu_unless_fp32_is_asked_for_and_on_a_cpu_only_if_asked_for() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    found = {
        (p, d.type): uses_bf16(replace(RECIPE, precision=p), d)
        for p in ("auto", "bf16", "fp32")
        for d in (cpu, gpu)
    }  # type: ignore[arg-type]
    assert found == {
        ("auto", "cpu"): False, ("bf16", "cpu"): has_bf16_instructions(), ("fp32", "cpu"): False,
        ("auto", "cuda"): True, ("bf16", "cuda"): True, ("fp32", "cuda"): False,
    }  # fmt: skip
    assert best_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU that torch can use")
def test_gpus_that_cannot_be_used_are_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finetuning._warn_of_unusable_gpus.cache_clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert [best_device().type, best_device().type] == ["cpu", "cpu"]
    told = capsys.readouterr().err
    assert told.count("warning: ") == 1
    assert "CUDA_VISIBLE_DEVICES=0" in told
    finetuning._warn_of_unusable_gpus.cache_clear()
