"""Compares an existing evaluation with a request: the same weights, images and settings, or what differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retfound_dist.config.loading import differences, to_dict, with_defaults
from retfound_dist.config.schema import EvaluateConfig
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import StartingWeights

_HOW = (
    "out.url",
    "threads",
    "jobs",
    "checkpoint",
    "data.path",
    "data.workers",
    "data.split_file",
    "data.allow_leak",
    "external.path",
)
"""Settings that say where and how a row runs, not what comes out: content tells weights and images."""


def is_same(
    metrics: Mapping[str, Any], start: StartingWeights, data: LabelledSet, config: EvaluateConfig
) -> bool:
    """Whether metrics.json came from these weights, these images and these settings."""
    return not changes(metrics, start, data, config)


def changes(
    metrics: Mapping[str, Any], start: StartingWeights, data: LabelledSet, config: EvaluateConfig
) -> list[str]:
    """What differs from the weights, images and settings of metrics.json, one sentence each."""
    checkpoint, differing = metrics["checkpoint"], []
    # By content and not by URL: the file at a URL may have been replaced, and the same file may have moved.
    if checkpoint["sha256"] != start.identity:
        there, here = _told(checkpoint), _told(start.describe())
        same = " (its content has changed)" if there == here else ""
        differing.append(f"checkpoint is {there} there and {here} here{same}")
    if metrics["data"]["fingerprint"] != data.fingerprint:
        there, here = metrics["data"]["path"], data.path
        same = " (its images, labels or split have changed)" if there == here else ""
        differing.append(f"data are {there} there and {here} here{same}")
    if _external(metrics) != (data.external.fingerprint if data.external else None):
        differing.append("the external set is another")
    # An older metrics.json lacks settings that came later. It was made with what are their defaults.
    for key, old, new in differences(with_defaults(EvaluateConfig, metrics["config"]), to_dict(config)):
        # A checkpoint brings its own encoder. `model.*` only shapes a network that starts from nothing.
        if key not in _HOW and not (start.kind != "none" and key.startswith("model.")):
            differing.append(f"{key} is {old!r} there and {new!r} here")
    return differing


def _told(checkpoint: Mapping[str, Any]) -> str:
    step = f" (step {checkpoint['step']:,})" if checkpoint.get("step") else ""
    return f"{checkpoint['url']}{step}"


def _external(metrics: Mapping[str, Any]) -> str | None:
    return metrics["external"]["data"]["fingerprint"] if "external" in metrics else None
