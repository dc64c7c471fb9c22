"""Compares an existing evaluation with a request: are weights, images and settings the same?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retfound_dist.config.loading import differences, to_dict, with_defaults
from retfound_dist.config.schema import EvaluateConfig
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import StartingWeights
from retfound_dist.evaluate.probe.probing import later_settings

_IGNORED_SETTINGS = (
    "out.url",
    "threads",
    "jobs",
    "checkpoint",
    "data.path",
    "data.workers",
    "data.split_file",
    "data.allow_leak",
    "external.path",
    "model.image_size",
)
"""Settings that do not change the result, or name weights and images, which are compared by content."""


def is_same(
    metrics: Mapping[str, Any], start: StartingWeights, data: LabelledSet, config: EvaluateConfig
) -> bool:
    """Whether metrics.json came from these weights, these images and these settings."""
    return not find_differences(metrics, start, data, config)


def find_differences(
    metrics: Mapping[str, Any], start: StartingWeights, data: LabelledSet, config: EvaluateConfig
) -> list[str]:
    """The differences from the weights, images and settings of metrics.json, a sentence each."""
    checkpoint, differing = metrics["checkpoint"], []
    # By content and not by URL, because a file may be replaced, or moved to another URL.
    if checkpoint["sha256"] != start.identity:
        old_name, new_name = _describe_checkpoint(checkpoint), _describe_checkpoint(start.describe())
        hint = " (its content has changed)" if old_name == new_name else ""
        differing.append(f"checkpoint is {old_name} there and {new_name} here{hint}")
    # The same file may be read as another architecture, or at another size.
    now = {"encoder": start.backbone.architecture(), "image_size": start.image_size}
    for name, value in now.items():
        if (before := checkpoint.get(name, value)) != value:
            differing.append(f"{name} is {before} there and {value} here")
    if metrics["data"]["fingerprint"] != data.fingerprint:
        old_name, new_name = metrics["data"]["path"], data.path
        hint = " (its images, labels or split have changed)" if old_name == new_name else ""
        differing.append(f"data are {old_name} there and {new_name} here{hint}")
    if _external(metrics) != (data.external.fingerprint if data.external else None):
        differing.append("the external set is different")
    later = {f"probe.{name}" for name in later_settings(metrics["config"].get("probe", {}))}
    # An older metrics.json lacks settings that were added later. It was made with their default values.
    for key, old, new in differences(with_defaults(EvaluateConfig, metrics["config"]), to_dict(config)):
        # `model.*` matters only for random weights: a checkpoint has its own encoder.
        ignored = key in _IGNORED_SETTINGS or key in later
        if not ignored and not (start.kind != "none" and key.startswith("model.")):
            differing.append(f"{key} is {old!r} there and {new!r} here")
    return differing


def _describe_checkpoint(checkpoint: Mapping[str, Any]) -> str:
    step = f" (step {checkpoint['step']:,})" if checkpoint.get("step") else ""
    return f"{checkpoint['url']}{step}"


def _external(metrics: Mapping[str, Any]) -> str | None:
    return metrics["external"]["data"]["fingerprint"] if "external" in metrics else None
