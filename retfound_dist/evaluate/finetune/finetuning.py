"""Fine-tunes a classifier on the train part, chooses the epoch on val, predicts test once.

Shapes: B batch, N images, S side, C classes, O outputs of the network.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from timm.data.random_erasing import RandomErasing
from torch import Tensor, nn

from retfound_dist.config.schema import Finetune
from retfound_dist.errors import DataError
from retfound_dist.evaluate.data.labelled_set import LabelledSet, SplitPart
from retfound_dist.evaluate.finetune.layer_decay import choose_epoch, learning_rate, parameter_groups
from retfound_dist.evaluate.finetune.objectives import (
    NO_VALIDATION,
    Objective,
    class_probabilities,
    objective_of,
)
from retfound_dist.evaluate.finetune.trained_parameters import (
    State,
    count_parameters,
    prepare_model,
    set_training_mode,
    trained_state,
)
from retfound_dist.evaluate.finetune.training_batches import batches, seeded_generators
from retfound_dist.evaluate.finetune.unit_predictions import (
    FeaturesOnce,
    TrainedAttention,
    fit_attention,
    head_inputs,
    pool_images,
    uses_attention,
)
from retfound_dist.evaluate.scores.bootstrap import ProgressCallback
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.evaluate.units.slice_pooling import SliceScores
from retfound_dist.evaluate.units.unit_parts import part_of_units
from retfound_dist.io.storage import FileInfo
from retfound_dist.model.backbones.backbone import Backbone
from retfound_dist.model.cpu_bf16 import choose_cpu_operators, has_bf16_instructions
from retfound_dist.model.devices import why_gpus_are_not_used

_TEST_BATCH = 64
# The key of a random generator is (seed, purpose, epoch, number). Purposes: 11 and 12 in training_batches, 13
# here, 14 in soft_targets, 15 in trained_parameters, 16 in unit_predictions. Another number would change the
# results.
_ERASE = 13
OnEpoch = Callable[[dict[str, Any]], None]
"""Called with the row of `FinetuneResult.history` after each epoch."""


@dataclass(frozen=True)
class KeptSeed:
    """The stored weights of one fine-tuning."""

    seed: int
    epoch: int
    """The chosen epoch, counted from 1."""
    file: str
    info: FileInfo


@dataclass(frozen=True)
class FinetuneResult:
    """The result of one fine-tuning."""

    seed: int
    history: list[dict[str, Any]]
    """One row for each epoch: seed, epoch, train_loss, lr, val_loss, val_auroc, val, seconds."""
    chosen_epoch: int
    """The epoch that was kept, counted from 1."""
    probabilities: Floats
    """(N, C) of the test part, predicted by the weights of the chosen epoch. Of other tasks than classes:
    `Objective.predictions`. Here and below a volume, an eye or a patient stands in place of an image where
    `data.unit` says so."""
    external_probabilities: Floats | None = None
    """(N, C) of the external set; None without one."""
    test_seconds: float = 0.0
    """Time that the prediction of the test part took."""
    trained_parameters: int = 0
    """Parameters that the method trained, with those of the head."""
    parameters: int = 0
    """All parameters of the model, with its head and adapters."""
    val_probabilities: Floats | None = None
    """(N, C) of the val part, by the weights of the chosen epoch; None without a val part."""
    kept: KeptSeed | None = None
    """Where the weights are stored, if they are kept."""
    slices: SliceScores | None = None
    """What the network says of each image of the test part; None where images are scored."""
    attention: TrainedAttention | None = None
    """The head that pools images (`finetune.pool = "attention"`)."""


def best_device() -> torch.device:
    """A GPU where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    _warn_of_unusable_gpus()
    return torch.device("cpu")


@cache
def _warn_of_unusable_gpus() -> None:
    """One line where this process has GPUs that torch cannot use: the CPU takes a hundred times as long."""
    if reason := why_gpus_are_not_used(os.environ):
        print(f"warning: {reason}", file=sys.stderr, flush=True)


def uses_bf16(recipe: Finetune, device: torch.device) -> bool:
    """Whether matrix products are in bf16.

    On a GPU: unless `precision` is fp32. On a CPU: if it is bf16 and the CPU has bf16 instructions.
    """
    if device.type == "cpu":
        return recipe.precision == "bf16" and has_bf16_instructions()
    return recipe.precision != "fp32"


def autocast_context(recipe: Finetune, device: torch.device) -> torch.autocast:
    """The autocast context of a forward pass."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(recipe, device))


def finetune(
    model: nn.Module,
    backbone: Backbone,
    data: LabelledSet,
    recipe: Finetune,
    seed: int,
    workers: int,
    on_step: ProgressCallback | None = None,
    on_epoch: OnEpoch | None = None,
) -> FinetuneResult:
    """Train, choose an epoch, predict. The same seed on the same machine gives the same result.

    The model is changed in place: it gets the adapters of the method, and the weights of the chosen epoch.
    """
    prepare_model(model, backbone, recipe, seed)
    device = next(model.parameters()).device
    if device.type == "cpu" and uses_bf16(recipe, device):
        choose_cpu_operators(model, "bf16")
    train, val = data.parts["train"], data.parts["val"]
    objective = objective_of(data, recipe, seed)
    stream = batches(
        train.images,
        objective.training_targets(train),
        recipe,
        backbone.image_size,
        seed,
        workers,
        backbone.preparation.interpolation,
    )
    training = _Training(model, backbone, recipe, objective, seed, -(-len(train) // recipe.batch), on_step)
    # Stochastic depth uses the global generator: earlier draws from it must not change the result.
    torch.manual_seed(seed + 1)
    history: list[dict[str, Any]] = []
    best_state: State = {}
    # Closed here, so that loader processes end and their file is deleted also where an epoch raises.
    with closing(stream):
        for epoch in range(recipe.epochs):
            started = time.monotonic()
            loss, lr = training.run_epoch(epoch, stream)
            row = {"seed": seed, "epoch": epoch + 1, "train_loss": loss, "lr": lr}
            row |= _validate(model, backbone, val, data.unit, objective, recipe)
            history.append({**row, "seconds": round(time.monotonic() - started, 2)})
            if choose_epoch(history) == epoch:
                best_state = trained_state(model)
            if on_epoch:
                on_epoch(history[-1])
    # Not strict: frozen parameters have not changed, so the state does not hold them.
    model.load_state_dict(best_state, strict=False)
    batch = prediction_batch(len(data.parts["test"]))
    read_features = FeaturesOnce(
        partial(head_inputs, model, backbone, batch=batch, bf16=uses_bf16(recipe, device))
    )
    attention = None
    if uses_attention(data, recipe):
        attention = fit_attention(model, backbone, data, recipe, seed, read_features)

    def predict_part(part: SplitPart) -> tuple[Floats, SliceScores | None]:
        images_NC = predict(model, backbone, part, recipe, batch, objective.predictions)
        return pool_images(part, images_NC, data.unit, attention, read_features)

    # First, because the attention head has just read the features of val.
    val_probabilities = predict_part(val)[0] if len(val) else None
    external_probabilities = predict_part(data.external.part)[0] if data.external else None
    started = time.monotonic()
    test_probabilities, slices = predict_part(data.parts["test"])
    test_seconds = time.monotonic() - started
    return FinetuneResult(
        seed,
        history,
        choose_epoch(history) + 1,
        test_probabilities,
        external_probabilities,
        test_seconds,
        *count_parameters(model),
        val_probabilities,
        slices=slices,
        attention=attention,
    )


class _Training:
    """The model, optimiser and recipe of one fine-tuning, and its training epochs."""

    def __init__(
        self,
        model: nn.Module,
        backbone: Backbone,
        recipe: Finetune,
        objective: Objective,
        seed: int,
        steps: int,
        on_step: ProgressCallback | None,
    ) -> None:
        self.model, self.backbone, self.recipe, self.objective = model, backbone, recipe, objective
        self.seed, self.steps, self.on_step = seed, steps, on_step
        self.device = next(model.parameters()).device
        self.optimizer = torch.optim.AdamW(parameter_groups(model, recipe), lr=0.0, weight_decay=0.0)
        self.erase = RandomErasing(recipe.random_erasing, mode="pixel", device=str(self.device))

    def run_epoch(self, epoch: int, stream: Iterator[tuple[Tensor, Tensor]]) -> tuple[float, float]:
        """Returns (mean training loss, last learning rate of the head)."""
        set_training_mode(self.model, self.recipe)
        # The loss is summed on the device: reading it at every step would make the GPU wait for this process.
        total_loss, image_count, lr = torch.zeros((), device=self.device), 0, 0.0
        for step in range(self.steps):
            lr = learning_rate(epoch + step / self.steps, self.recipe)
            loss, count = self._step(epoch, step, lr, *next(stream))
            total_loss, image_count = total_loss + loss * count, image_count + count
            if self.on_step:
                self.on_step(epoch * self.steps + step + 1, self.recipe.epochs * self.steps)
        mean_loss = float(total_loss) / image_count
        if not np.isfinite(mean_loss):
            raise _diverged(f"the training loss became {mean_loss} in epoch {epoch + 1}", self.recipe)
        return mean_loss, lr

    def _step(
        self, epoch: int, step: int, lr: float, images_B3SS: Tensor, targets: Tensor
    ) -> tuple[Tensor, int]:
        """One update at the rate `lr` on a batch of B images (B, 3, S, S); returns its loss and B.

        The loss stays on the device: reading it would make each step wait.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        images = self.backbone.preparation.normalise(images_B3SS.to(self.device, non_blocking=True))
        with seeded_generators((self.seed, _ERASE, epoch, step)):
            images = self.erase(images)
        images, targets = self.objective.prepare(
            images, targets.to(self.device, non_blocking=True), epoch, step
        )
        with autocast_context(self.recipe, self.device):
            outputs_BO = self.model(images)
        loss = self.objective.loss(outputs_BO, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach(), len(images_B3SS)


def _validate(
    model: nn.Module, backbone: Backbone, val: SplitPart, unit: str, objective: Objective, recipe: Finetune
) -> dict[str, Any]:
    """`Objective.validation` of the val part; None for each value without a val part."""
    if not len(val):
        return dict(NO_VALIDATION)
    predictions = predict(model, backbone, val, recipe, to_predictions=objective.predictions)
    return objective.validation(part_of_units(val, unit), pool_images(val, predictions, unit)[0])


def prediction_batch(images: int) -> int:
    """Images of each forward pass that predicts a test part with so many images."""
    # A multiple of 8, at most `_TEST_BATCH`: a small test part is not filled up to a whole large batch.
    return min(_TEST_BATCH, -(-images // 8) * 8)


@torch.inference_mode()
def predict(
    model: nn.Module,
    backbone: Backbone,
    part: SplitPart,
    recipe: Finetune,
    batch: int = 0,
    to_predictions: Callable[[Tensor], Tensor] = class_probabilities,
) -> Floats:
    """Probabilities (N, C) of a part with images (S, S), or what `to_predictions` makes of the outputs.

    `batch`: every forward pass has so many images, the last is filled up with black ones. The last digits of
    a probability can depend on the number of images, so `retfound predict` uses the same. 0: not filled up.
    """
    model.eval()
    device = next(model.parameters()).device
    batch_predictions = []
    size = batch or _TEST_BATCH
    for start in range(0, len(part), size):
        images = torch.from_numpy(np.stack(part.images[start : start + size])[:, None])
        count = len(images)
        if batch > count:
            images = torch.cat([images, images.new_zeros(batch - count, *images.shape[1:])])
        with autocast_context(recipe, device):
            outputs = model(backbone.preparation.normalise(images.to(device)))
        batch_predictions.append(to_predictions(outputs[:count].float()).double().cpu().numpy())
    predictions = np.concatenate(batch_predictions)
    # The last step can diverge although its own loss was still finite.
    if not np.isfinite(predictions).all():
        raise _diverged("the fine-tuned weights predict values that are not finite", recipe)
    return predictions


def _diverged(problem: str, recipe: Finetune) -> DataError:
    return DataError(f"{problem}: lower finetune.base_lr={recipe.base_lr:g}")
