"""Kept classifiers with drawn weights, made in a second: an export does not need trained ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from retfound_dist.config.schema import Finetune
from retfound_dist.evaluate.classifier import classifier_file
from retfound_dist.evaluate.classifier.kept_classifier import save_seed
from retfound_dist.evaluate.finetune.finetuning import FinetuneResult
from retfound_dist.evaluate.finetune.trained_parameters import prepare_model
from retfound_dist.evaluate.tasks.task_facts import TaskFacts
from retfound_dist.model.backbones.backbone import Backbone
from retfound_dist.model.backbones.opening import random_backbone

CLASSES = ["CSR", "MH", "NORMAL"]
SCORES = {"auroc": 0.9, "aupr": 0.8, "balanced_accuracy": 0.7, "f1": 0.6}


def demo_backbone() -> Backbone:
    return random_backbone("vit_demo_patch14", 28)


def make_classifier(
    url: Path,
    backbone: Backbone | None = None,
    seeds: tuple[int, ...] = (0, 1),
    recipe: Finetune | None = None,
    task: TaskFacts | None = None,
    **fields: Any,
) -> str:
    """A classifier's folder at `url`. Heads and adapters are drawn wide, so that images differ in logits."""
    backbone, recipe = backbone or demo_backbone(), recipe or Finetune()
    if task:
        fields |= {"task": task.to_json(), "classes": list(task.predicted_names)}
    kept = []
    for seed in seeds:
        model: Any = backbone.build(task.outputs if task else len(CLASSES), seed=seed)
        prepare_model(model, backbone, recipe, seed)
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, value in model.named_parameters():
                if any(part in name for part in ("head", "fc.", "lora_B")):
                    value.add_(torch.randn_like(value) * 0.1)
        result = FinetuneResult(seed, [], 3, np.empty((0, len(CLASSES))))
        kept.append(save_seed(str(url), model, result))
    tree: dict[str, Any] = {
        "task": {"kind": "multiclass"},
        "classes": CLASSES,
        "backbone": backbone.to_json(),
        "image_size": backbone.image_size,
        "normalisation": {
            "mean": list(backbone.preparation.mean),
            "std": list(backbone.preparation.std),
            "interpolation": backbone.preparation.interpolation,
        },
        "recipe": {"method": recipe.method, "lora_rank": recipe.lora_rank, "lora_alpha": recipe.lora_alpha},
        "batch": 8,
        "precision": "fp32",
        "digits": 8,
        "temperature": {"value": 0.7, "images": 40, "reason": None},
        "starting_weights": {
            "url": "/home/dr_weber/weights/RETFound_oct_weights.pth",
            "kind": "file",
            "owner": "RETFound's",
            "licence": "CC BY-NC 4.0",
        },
        "data": {
            "fingerprint": "0123abcd",
            "split": {
                "by": "patient",
                "train": 1054,
                "val": 40,
                "test": 41,
                "patients": {"train": 27, "val": None, "test": 9},
                "per_class": {part: dict.fromkeys(CLASSES, 18) for part in ("train", "val", "test")},
            },
        },
        "scores": {"macro": SCORES, "ci95": {"auroc": [0.85, 0.95], "f1": None}},
        "versions": {},
    }
    classifier_file.write(str(url), tree | fields, kept)
    return str(url)
