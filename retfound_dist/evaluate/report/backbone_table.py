"""What is compared: size, cost and input of each row's encoder, as a table and as a warning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retfound_dist.evaluate.report.score_tables import MetricsByRow

_COLUMNS = (
    "architecture", "input", "tokens", "parameters", "trained", "GFLOP an image", "normalisation",
    "interpolation", "images/s", "fine-tuning",
)  # fmt: skip
_NOTE = (
    "The encoder of each row without its head. Trained: the parameters that fine-tuning changes, and their "
    "share of all, both with head and adapters. A multiply and an add are two operations. Images/s: "
    "prediction of the test part on this machine. Fine-tuning: seconds of one seed."
)
IMAGENET = "ImageNet"
_IMAGENET_MEAN = (0.485, 0.456, 0.406)


def backbone_tables(metrics: MetricsByRow) -> list[dict[str, Any]]:
    """One table, one line for each row; empty if no row has these facts (made by an older version)."""
    lines = []
    for row, tree in metrics.items():
        if facts := tree["checkpoint"].get("backbone"):
            cells = [
                _plain_cell(text)
                for text in _cells(facts, tree.get("finetune") or {}, tree.get("speed") or {})
            ]
            lines.append({"name": row, "cells": cells})
    if not lines:
        return []
    return [{"title": "What is compared", "note": _NOTE, "columns": list(_COLUMNS), "lines": lines}]


def token_warning(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """A sentence if the rows see the image in different numbers of tokens; empty if they do not."""
    tokens = {row: int(one["tokens"]) for row, one in facts.items()}
    if len(set(tokens.values())) < 2:
        return ""
    listed = ", ".join(f"{row} {count:,}" for row, count in tokens.items())
    sizes = {int(one["image_size"]) for one in facts.values()}
    advice = 'set sizes="same" for one input size' if len(sizes) > 1 else "their patches differ in size"
    return (
        f"the rows see an image as different numbers of tokens ({listed}). More tokens cost more and show "
        f"finer detail: {advice}"
    )


def _cells(facts: Mapping[str, Any], trained: Mapping[str, Any], speed: Mapping[str, Any]) -> list[str]:
    """The cells of one row: `facts` of the network, what was `trained`, and measured `speed`."""
    return [
        str(facts["family"]),
        f"{facts['image_size']} px",
        f"{facts['tokens']:,}",
        f"{facts['parameters'] / 1e6:.1f} M",
        _trained(trained),
        f"{facts['gflops']:.1f}",
        _normalisation(facts["mean"]),
        str(facts["interpolation"]),
        f"{speed['test_images_per_s']:,.1f}" if speed.get("test_images_per_s") else "-",
        f"{speed['finetune_s']:,.0f} s" if speed.get("finetune_s") is not None else "-",
    ]


def _trained(finetune: Mapping[str, Any]) -> str:
    """Millions and share of the trained parameters; - if an older version made the row."""
    count = finetune.get("trained_parameters")
    if not count:
        return "-"
    # Two digits below a million: a head alone has some thousand parameters.
    millions = f"{count / 1e6:.1f}" if count >= 1e6 else f"{count / 1e6:.2g}"
    return f"{millions} M ({100 * count / finetune['parameters']:.3g} %)"


def _normalisation(mean: list[float]) -> str:
    return IMAGENET if tuple(mean) == _IMAGENET_MEAN else "mean " + ", ".join(f"{v:.3g}" for v in mean)


def _plain_cell(text: str) -> dict[str, Any]:
    return {"value": text, "span": "", "reason": "", "best": False, "tied": False}
