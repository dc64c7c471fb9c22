"""Compares an existing evaluation with a request: are weights, images and settings the same?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retfound_dist.config.loading import differences, to_dict, with_defaults
from retfound_dist.config.schema import EvaluateConfig
from retfound_dist.evaluate.clinical.subgroup_scores import has_groups_of
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import StartingWeights
from retfound_dist.evaluate.probe.probing import later_settings
from retfound_dist.evaluate.units.unit_parts import part_of_units

_IGNORED_SETTINGS = (
    "out.url",
    "threads",
    "jobs",
    "checkpoint",
    "data.path",
    "data.labels",
    "data.workers",
    "data.split_file",
    "data.allow_leak",
    "external.path",
    "model.image_size",
    "finetune.keep",
)
"""Settings that do not change the result, or name weights and images, which are compared by content."""


def is_same(
    metrics: Mapping[str, Any], start: StartingWeights, data: LabelledSet, config: EvaluateConfig
) -> bool:
    """Whether metrics.json came from these weights, these images and these settings."""
    return not find_differences(metrics, start, data, config)


def can_be_rescored(metrics: Mapping[str, Any]) -> bool:
    """Whether the files are enough to compute clinical scores and subgroups again (`rescored_evaluation.py`).

    Not where an earlier version has made it, where an external set was tested (its probabilities of each seed
    are not kept), or where slices were pooled.
    """
    unit = metrics["config"].get("data", {}).get("unit", "image")
    return "clinical" in metrics and "external" not in metrics and unit == "image"


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
    later_scores = ("clinical.", "data.subgroups") if can_be_rescored(metrics) else ()
    # An older metrics.json lacks settings that were added later. It was made with their default values.
    for key, old, new in differences(with_defaults(EvaluateConfig, metrics["config"]), to_dict(config)):
        # `model.*` matters only for random weights: a checkpoint has its own encoder.
        ignored = key in _IGNORED_SETTINGS or key in later or key.startswith(later_scores)
        if not ignored and not (start.kind != "none" and key.startswith("model.")):
            differing.append(f"{key} is {old!r} there and {new!r} here")
    return differing + _moved_groups(metrics, data, config)


def _moved_groups(metrics: Mapping[str, Any], data: LabelledSet, config: EvaluateConfig) -> list[str]:
    """Where the scores cannot be computed again: the tests whose images are in other subgroups now.

    Cells of a list may change while its images, labels and patients stay as they were.
    """
    made_for = tuple(metrics["config"].get("data", {}).get("subgroups", ()))
    # Other columns are a difference of the settings.
    if can_be_rescored(metrics) or made_for != config.data.subgroups:
        return []
    tests = [(data.path, metrics, data.parts["test"])]
    if data.external and "external" in metrics:
        tests.append((data.external.path, metrics["external"], data.external.part))
    return [
        f"the images of {path} are in other subgroups now (data.subgroups: {', '.join(made_for)})"
        for path, scores, part in tests
        if not has_groups_of(scores, part_of_units(part, data.unit), made_for)
    ]


def _describe_checkpoint(checkpoint: Mapping[str, Any]) -> str:
    step = f" (step {checkpoint['step']:,})" if checkpoint.get("step") else ""
    return f"{checkpoint['url']}{step}"


def _external(metrics: Mapping[str, Any]) -> str | None:
    return metrics["external"]["data"]["fingerprint"] if "external" in metrics else None
