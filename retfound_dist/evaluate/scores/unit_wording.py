"""What a score counts: images, volumes, eyes or patients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def unit_noun(metrics: Mapping[str, Any]) -> str:
    """`images`, `volumes`, `eyes` or `patients`, of a metrics.json or its `external`."""
    return f"{unit_name(metrics)}s"


def unit_name(metrics: Mapping[str, Any]) -> str:
    """`image`, `volume`, `eye` or `patient`."""
    # Evaluations of images, and those of older versions, do not name it. An external set has no split.
    return str(metrics.get("split", metrics).get("unit", "image"))


def describe_test_part(metrics: Mapping[str, Any]) -> str:
    """`24 test eyes (288 images)`, or `24 test images`."""
    split = metrics["split"]
    text = f"{split['test']:,} test {unit_noun(metrics)}"
    return f"{text} ({split['images']['test']:,} images)" if "images" in split else text


def describe_pooling(metrics: Mapping[str, Any]) -> str:
    """How images became one prediction, in a sentence; empty where images are scored."""
    unit = unit_name(metrics)
    if unit == "image":
        return ""
    ways = {
        "mean": "The prediction of each {unit} is the mean of the logits of its images.",
        "attention": "A trained attention head weighs the images of each {unit} for its prediction.",
    }
    # With `try_recipes` the recipe that val chose may pool in another way than the settings say.
    recipe = {**metrics["config"]["finetune"], **metrics.get("tuning", {}).get("recipe", {})}
    return ways[recipe.get("pool", "mean")].format(unit=unit)


def train_images(metrics: Mapping[str, Any]) -> int:
    """Images of the train part, which the network learns from, whatever is scored."""
    split = metrics["split"]
    return int(split.get("images", split)["train"])
