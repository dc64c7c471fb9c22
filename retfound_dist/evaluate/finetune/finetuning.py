"""Fine-tunes a classifier on the train part, chooses the epoch on val, predicts test once.

Shapes: B batch, N images, S side, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from timm.data.random_erasing import RandomErasing
from torch import Tensor, nn

from retfound_dist.config.schema import Finetune
from retfound_dist.errors import DataError
from retfound_dist.evaluate.data.labelled_set import LabelledSet, SplitPart
from retfound_dist.evaluate.finetune.layer_decay import choose_epoch, learning_rate, parameter_groups
from retfound_dist.evaluate.finetune.soft_targets import Mixer, class_weights, training_loss
from retfound_dist.evaluate.finetune.trained_parameters import (
    State,
    count_parameters,
    prepare_model,
    set_training_mode,
    trained_state,
)
from retfound_dist.evaluate.finetune.training_batches import batches, seeded_generators
from retfound_dist.evaluate.scores import metrics
from retfound_dist.evaluate.scores.bootstrap import ProgressCallback
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.model.backbones.backbone import Backbone
from retfound_dist.model.cpu_bf16 import choose_cpu_operators, has_bf16_instructions

_TEST_BATCH = 64
# The key of a random generator is (seed, purpose, epoch, number). Purposes: 11 and 12 in training_batches, 13
# here, 14 in soft_targets, 15 in trained_parameters. Another number would change every result.
_ERASE = 13
OnEpoch = Callable[[dict[str, Any]], None]
"""Called with the row of `FinetuneResult.history` after each epoch."""


@dataclass(frozen=True)
class FinetuneResult:
    """The result of one fine-tuning."""

    seed: int
    history: list[dict[str, Any]]
    """One row for each epoch: seed, epoch, train_loss, lr, val_loss, val_auroc, val, seconds."""
    chosen_epoch: int
    """The epoch that was kept, counted from 1."""
    probabilities: Floats
    """(N, C) of the test part, predicted by the weights of the chosen epoch."""
    external_probabilities: Floats | None = None
    """(N, C) of the external set; None without one."""
    test_seconds: float = 0.0
    """Time that the prediction of the test part took."""
    trained_parameters: int = 0
    """Parameters that the method trained, with those of the head."""
    parameters: int = 0
    """All parameters of the model, with its head and adapters."""


def best_device() -> torch.device:
    """A GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
    stream = batches(
        train.images,
        train.labels.tolist(),
        recipe,
        backbone.image_size,
        seed,
        workers,
        backbone.preparation.interpolation,
    )
    weights_C = class_weights(train.labels, len(data.classes), recipe)
    mixer = Mixer(recipe, len(data.classes), seed)
    training = _Training(model, backbone, recipe, mixer, weights_C, -(-len(train) // recipe.batch), on_step)
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
            row |= _validate(model, backbone, val, data.classes, recipe)
            history.append({**row, "seconds": round(time.monotonic() - started, 2)})
            if choose_epoch(history) == epoch:
                best_state = trained_state(model)
            if on_epoch:
                on_epoch(history[-1])
    # Not strict: frozen parameters have not changed, so the state does not hold them.
    model.load_state_dict(best_state, strict=False)
    external_probabilities = predict(model, backbone, data.external.part, recipe) if data.external else None
    started = time.monotonic()
    test_probabilities = predict(model, backbone, data.parts["test"], recipe)
    test_seconds = time.monotonic() - started
    return FinetuneResult(
        seed,
        history,
        choose_epoch(history) + 1,
        test_probabilities,
        external_probabilities,
        test_seconds,
        *count_parameters(model),
    )


class _Training:
    """The model, optimiser and recipe of one fine-tuning, and its training epochs."""

    def __init__(
        self,
        model: nn.Module,
        backbone: Backbone,
        recipe: Finetune,
        mixer: Mixer,
        weights_C: Tensor | None,
        steps: int,
        on_step: ProgressCallback | None,
    ) -> None:
        self.model, self.backbone, self.recipe, self.mixer = model, backbone, recipe, mixer
        self.steps, self.on_step = steps, on_step
        self.device = next(model.parameters()).device
        self.weights_C = None if weights_C is None else weights_C.to(self.device)
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
        self, epoch: int, step: int, lr: float, images_B3SS: Tensor, labels_B: Tensor
    ) -> tuple[Tensor, int]:
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        images = self.backbone.preparation.normalise(images_B3SS.to(self.device, non_blocking=True))
        with seeded_generators((self.mixer.seed, _ERASE, epoch, step)):
            images = self.erase(images)
        images, targets_BC = self.mixer(images, labels_B.to(self.device, non_blocking=True), epoch, step)
        with autocast_context(self.recipe, self.device):
            logits_BC = self.model(images)
        loss = training_loss(logits_BC, targets_BC, self.weights_C)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach(), len(labels_B)


def _validate(
    model: nn.Module, backbone: Backbone, val: SplitPart, classes: tuple[str, ...], recipe: Finetune
) -> dict[str, Any]:
    """Val loss, AUROC over the classes in val, and all macro scores; each None without a val part."""
    if not len(val):
        return {"val_loss": None, "val_auroc": None, "val": None}
    probabilities_NC = predict(model, backbone, val, recipe)
    auroc_C, _ = metrics.ranking(val.labels, probabilities_NC)
    defined_auroc = auroc_C[np.isfinite(auroc_C)]
    return {
        "val_loss": metrics.mean_log_loss(val.labels, probabilities_NC),
        "val_auroc": float(defined_auroc.mean()) if len(defined_auroc) else None,
        "val": metrics.evaluate(val.labels, probabilities_NC, classes)["macro"],
    }


@torch.inference_mode()
def predict(model: nn.Module, backbone: Backbone, part: SplitPart, recipe: Finetune) -> Floats:
    """Probabilities (N, C) of a part with images (S, S)."""
    model.eval()
    device = next(model.parameters()).device
    batch_probabilities = []
    for start in range(0, len(part), _TEST_BATCH):
        images = torch.from_numpy(np.stack(part.images[start : start + _TEST_BATCH])[:, None])
        with autocast_context(recipe, device):
            logits = model(backbone.preparation.normalise(images.to(device)))
        batch_probabilities.append(logits.float().softmax(1).double().cpu().numpy())
    probabilities_NC = np.concatenate(batch_probabilities)
    # The last step can diverge although its own loss was still finite.
    if not np.isfinite(probabilities_NC).all():
        raise _diverged("the fine-tuned weights predict probabilities that are not finite", recipe)
    return probabilities_NC


def _diverged(problem: str, recipe: Finetune) -> DataError:
    return DataError(f"{problem}: lower finetune.base_lr={recipe.base_lr:g}")
