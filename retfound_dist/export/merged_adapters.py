"""Merges low-rank adapters (LoRA) into the weights of their layers, so that no program behind needs peft."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from retfound_dist.evaluate.classifier.classifier import Classifier
from retfound_dist.runtime.optional_packages import requires_extra


def merged_classifier(classifier: Classifier, seeds: Sequence[int]) -> Classifier:
    """A copy with the networks of these seeds, in eval mode, on the CPU and without adapters."""
    chosen = classifier_of_seeds(classifier, seeds)
    return Classifier([merged_model(model) for model in chosen.models], chosen.backbone, chosen.facts).eval()


def classifier_of_seeds(classifier: Classifier, seeds: Sequence[int]) -> Classifier:
    """The same networks, but only those of these seeds, in eval mode and on the CPU."""
    models = [classifier.models[classifier.seeds.index(seed)].cpu() for seed in seeds]
    kept = [entry for entry in classifier.facts.seeds if entry.seed in seeds]
    return Classifier(models, classifier.backbone, replace(classifier.facts, seeds=kept)).eval()


def merged_model(model: nn.Module) -> nn.Module:
    """A copy of a network in which low-rank adapters are merged into the weights of their layers."""
    merged = copy.deepcopy(model)
    # Without adapters peft is not needed, and may not be installed.
    if not any("lora_" in name for name in merged.state_dict()):
        return merged
    with requires_extra("a classifier with low-rank adapters", "peft"):
        from peft.tuners.tuners_utils import BaseTunerLayer
    for name, layer in list(merged.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge(safe_merge=True)
            merged.set_submodule(name, layer.get_base_layer())
    return merged
