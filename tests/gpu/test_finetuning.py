"""Fine-tuning on a pretended GPU: every task, every method, and the attention head of units.

A training step may not wait for the GPU at all. An epoch reads its mean loss once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from retfound_dist.config.schema import EvalData, Finetune, Task
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.finetune import unit_predictions
from retfound_dist.evaluate.finetune.finetuning import FinetuneResult, best_device, finetune, predict
from retfound_dist.evaluate.finetune.objectives import output_count
from retfound_dist.model.backbones.backbone import _channel_values
from retfound_dist.model.backbones.plain_vit import PlainVit
from retfound_dist.model.mae import EncoderShape
from tests.evaluate.inputs import class_folders
from tests.evaluate.tasks_made import bright_list
from tests.evaluate.volumes import eye_volumes
from tests.gpu.gpu_tensor import PretendGpu, Wait
from tests.gpu.pretend_gpu import pretend_gpu

BACKBONE = PlainVit(None, EncoderShape(width=48, depth=2, heads=3, patch=14), 28)
RECIPE = Finetune(epochs=2, batch=8, warmup_epochs=1.0, base_lr=2e-2, precision="fp32", random_erasing=0.0)
EVERYTHING = replace(
    RECIPE,
    mixup=0.8,
    cutmix=1.0,
    class_weights="balanced",
    random_erasing=0.5,
    drop_path=0.2,
    precision="bf16",
)
CHANNELS = "retfound_dist/model/backbones/backbone.py _channel_values"
CLASS_WEIGHTS = "retfound_dist/evaluate/finetune/objectives.py loss"
FINETUNING = "retfound_dist/evaluate/finetune/finetuning.py"


@pytest.fixture
def gpu() -> Iterator[PretendGpu]:
    _channel_values.cache_clear()
    with pretend_gpu() as gpu:
        yield gpu
    _channel_values.cache_clear()


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> LabelledSet:
    return load_labelled_set(EvalData(path=str(class_folders(tmp_path_factory.mktemp("set") / "set"))), 28)


def run_on(
    device: str | torch.device, data: LabelledSet, recipe: Finetune, workers: int = 0
) -> FinetuneResult:
    model = BACKBONE.build(output_count(data), recipe.drop_path, 0).to(device)
    return finetune(model, BACKBONE, data, recipe, 0, workers)


def counted(waits: list[Wait]) -> Counter[str]:
    return Counter(wait.where for wait in waits)


def assert_no_step_waits(waits: list[Wait], epochs: int) -> None:
    """The waits of a fine-tuning are those of its epochs and predictions, however many steps it has."""
    places = counted(waits)
    in_training = {where: count for where, count in places.items() if where.startswith("retfound_dist")}
    assert in_training.pop(f"{FINETUNING} run_epoch") == epochs
    # Each pass of a prediction copies its images to the GPU, and its results back.
    assert set(in_training) <= {
        f"{FINETUNING} predict",
        CHANNELS,
        CLASS_WEIGHTS,
        "retfound_dist/evaluate/finetune/trained_parameters.py <dictcomp>",  # the weights of the best epoch
        f"{FINETUNING} finetune",  # and back
    }, places
    once = [in_training.get(where, 0) for where in (CHANNELS, CLASS_WEIGHTS)]
    assert once[0] <= 2, places
    assert once[1] <= 1, places


def test_a_fine_tuning_has_the_numbers_of_a_cpu(classes: LabelledSet, gpu: PretendGpu) -> None:
    recipe = replace(RECIPE, mixup=0.8, cutmix=1.0, class_weights="balanced")
    results = [run_on(device, classes, recipe) for device in ("cpu", "cuda")]
    for ours, plain in zip(results[1].history, results[0].history, strict=True):
        assert ours["train_loss"] == pytest.approx(plain["train_loss"], rel=1e-3)
        assert ours["val_loss"] == pytest.approx(plain["val_loss"], rel=1e-2)
    np.testing.assert_allclose(results[1].probabilities, results[0].probabilities, atol=1e-2)


@pytest.mark.parametrize("method", ["full", "head", "lora"])
def test_no_step_waits_for_the_gpu(method: str, classes: LabelledSet, gpu: PretendGpu) -> None:
    recipe = replace(EVERYTHING, method=method)
    with gpu.watched() as waits:
        result = run_on(best_device(), classes, recipe)
    assert np.isfinite(result.probabilities).all()
    assert_no_step_waits([wait for wait in waits if "_insert_adapters" not in wait.where], recipe.epochs)


def test_the_same_seed_gives_the_same_result_although_the_gpu_draws(
    classes: LabelledSet, gpu: PretendGpu
) -> None:
    first, second = (run_on("cuda", classes, EVERYTHING) for _ in range(2))
    assert (first.probabilities == second.probabilities).all()


def test_loader_processes_hand_over_page_locked_batches(classes: LabelledSet, gpu: PretendGpu) -> None:
    """Pinned by a thread of the loader in this process, which this pretence does not reach."""
    from retfound_dist.evaluate.finetune import training_batches

    stream = training_batches.batches(
        [np.zeros((28, 28), np.uint8)] * 4, [0, 1, 0, 1], RECIPE, 28, 0, workers=0
    )
    images, labels = next(stream)
    stream.close()
    assert images.is_pinned()
    assert labels.is_pinned()


@pytest.mark.parametrize("kind", ["multilabel", "regression", "ordinal"])
def test_every_kind_of_task_is_learned_without_a_wait_in_a_step(
    kind: str, gpu: PretendGpu, tmp_path: Path
) -> None:
    targets = {"multilabel": ("cyst", "fluid"), "regression": ("age",), "ordinal": ("stage",)}[kind]
    path = bright_list(tmp_path / "set", images=24)
    data = load_labelled_set(EvalData(path=str(path)), 28, task=Task(kind=kind, targets=targets))
    with gpu.watched() as waits:
        ours = run_on("cuda", data, RECIPE)
    assert_no_step_waits(waits, RECIPE.epochs)
    plain = run_on("cpu", data, RECIPE)
    np.testing.assert_allclose(ours.probabilities, plain.probabilities, rtol=1e-2, atol=1e-2)


def test_a_prediction_waits_twice_in_each_pass(classes: LabelledSet, gpu: PretendGpu) -> None:
    """For the copy of its images, and for its results."""
    part = classes.parts["test"]
    model = BACKBONE.build(3).to("cuda")
    predict(model, BACKBONE, part, RECIPE, 4)
    with gpu.watched() as waits:
        ours = predict(model, BACKBONE, part, RECIPE, 4)
    assert counted(waits) == {f"{FINETUNING} predict": 2 * -(-len(part) // 4)}
    np.testing.assert_allclose(ours, predict(model.cpu(), BACKBONE, part, RECIPE, 4), atol=1e-6)


def test_the_attention_head_of_units_has_the_numbers_of_a_cpu(
    gpu: PretendGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eye_volumes(tmp_path / "set", patients=8, slices=2)
    data = load_labelled_set(EvalData(path=str(tmp_path / "set"), unit="eye"), 28)
    monkeypatch.setattr(unit_predictions, "EPOCHS", 3)
    recipe = replace(RECIPE, epochs=1, pool="attention")
    results = [run_on(device, data, recipe) for device in ("cpu", "cuda")]
    np.testing.assert_allclose(results[1].probabilities, results[0].probabilities, atol=1e-2)
    assert results[0].slices is not None
    assert results[1].slices is not None
    np.testing.assert_allclose(results[1].slices.weights_N, results[0].slices.weights_N, atol=1e-2)
