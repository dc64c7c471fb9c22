"""Stores the classifier of an evaluation: the weights of each seed, and what is needed to use them again."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from retfound_dist.config.schema import MULTICLASS, Finetune
from retfound_dist.evaluate.classifier.classifier_file import POOL_PREFIX
from retfound_dist.evaluate.clinical.clinical_entries import kept_thresholds
from retfound_dist.evaluate.data.starting_weights import StartingWeights
from retfound_dist.evaluate.finetune.finetuning import (
    FinetuneResult,
    KeptSeed,
    best_device,
    prediction_batch,
    uses_bf16,
)
from retfound_dist.evaluate.scores.metrics import DIGITS
from retfound_dist.evaluate.scores.unit_wording import unit_name
from retfound_dist.evaluate.tasks.task_facts import TaskFacts
from retfound_dist.io import storage, verified_files
from retfound_dist.io.scratch import new_temporary_folder
from retfound_dist.model.weights.licences import licence_of, original_weights


@dataclass(frozen=True)
class KeptClassifier:
    """A classifier whose weights are stored, and whose classifier.json is not written yet."""

    fields: dict[str, Any]
    """classifier.json without `seeds` and `files`."""
    seeds: list[KeptSeed]


def save_seed(url: str, model: nn.Module, result: FinetuneResult) -> KeptSeed:
    """Store the weights of one seed in the classifier's folder, under a new name."""
    name = f"seed_{result.seed}-{uuid.uuid4().hex[:8]}.safetensors"
    # Copies, because tensors that share memory (tied weights) cannot be stored as they are.
    state = {key: tensor.detach().cpu().clone() for key, tensor in model.state_dict().items()}
    if result.attention:
        pool = result.attention.pool.state_dict()
        state |= {f"{POOL_PREFIX}{key}": tensor.detach().cpu() for key, tensor in pool.items()}
    with new_temporary_folder() as folder:
        path = str(Path(folder) / name)
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, path, {"format": "pt"})
        info = verified_files.upload_verified(path, storage.join(url, name))
    return KeptSeed(result.seed, result.chosen_epoch, name, info)


def kept_classifier(
    start: StartingWeights,
    metrics: Mapping[str, Any],
    recipe: Finetune,
    results: Sequence[FinetuneResult],
    task: TaskFacts | None = None,
) -> KeptClassifier:
    """The classifier of an evaluation; `metrics`: its metrics.json. `task`: where it is not classes."""
    backbone = start.backbone
    whose, licence = licence_of(_origin(start))
    predicted: dict[str, Any] = (
        {
            "task": {"kind": MULTICLASS},
            "classes": metrics["classes"],
            "temperature": metrics["temperature"],
            "scores": {"macro": metrics["macro"], "ci95": metrics["ci95"]["macro"]},
        }
        if task is None
        else {
            "task": task.to_json(),
            "classes": list(task.predicted_names),
            "temperature": {"value": 1.0, "reason": "temperature scaling is only for classes"},
            "scores": {"macro": metrics["scores"], "ci95": metrics["ci95"]},
        }
    )
    fields = {
        **predicted,
        "backbone": backbone.to_json(),
        "image_size": backbone.image_size,
        "normalisation": asdict(backbone.preparation),
        "recipe": asdict(recipe) | {"try_recipes": []},
        "batch": prediction_batch(int(metrics["split"].get("images", metrics["split"])["test"])),
        "precision": "bf16" if uses_bf16(recipe, best_device()) else "fp32",
        "digits": DIGITS,
        "unit": {"kind": unit_name(metrics), "pool": recipe.pool},
        "thresholds": metrics.get("thresholds") or kept_thresholds(metrics.get("clinical")),
        "starting_weights": {**metrics["checkpoint"], "owner": whose, "licence": licence},
        "data": {"fingerprint": metrics["data"]["fingerprint"], "split": metrics["split"]},
        "versions": metrics["versions"],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return KeptClassifier(fields, [result.kept for result in results if result.kept])


def _origin(start: StartingWeights) -> str:
    """The first weights of the chain that these weights came from."""
    config = start.meta.get("config") or {}
    return original_weights(config.get("model", {}).get("init", "")) if config else start.url
