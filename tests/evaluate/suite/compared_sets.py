"""Contents of compare.json with chosen scores, for tests of a suite's statistics and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from retfound_dist.evaluate.report.paired_differences import DECISIVE_SCORES


def compared_set(scores: Mapping[str, float | None], clear: float = 0.05) -> dict[str, Any]:
    """One set: both decisive scores of each row. Differences above `clear` are real."""
    known = [value for value in scores.values() if value is not None]
    best = max(known, default=None)
    ties = [
        row
        for row, v in scores.items()
        if v is not None and best is not None and v < best and best - v <= clear
    ]
    return {
        "rows": {row: _row(value) for row, value in scores.items()},
        "best": {
            metric: next((row for row, v in scores.items() if v == best), None) for metric in DECISIVE_SCORES
        },
        "pairs": [
            {"metric": metric, "one": one, "other": other, **_difference(scores[one], scores[other], clear)}
            for metric in DECISIVE_SCORES
            for one, other in combinations(scores, 2)
        ],
        "ties": {"macro": dict.fromkeys(DECISIVE_SCORES, ties)},
        "split": {"by": "patient", "train": 60, "val": 20, "test": 20, "known_by": {"patient": 100}},
        "bootstrap": {"unit": "patient", "units": 20, "resamples": 1000},
        "classes": ["A", "B"],
        "seeds": [0],
    }


def compared_sets(
    rows: Sequence[str], table: Sequence[Sequence[float | None]], clear: float = 0.05
) -> dict[str, Any]:
    """Sets s0, s1, ... from a table with a line for each set and a column for each row."""
    return {f"s{i}": compared_set(dict(zip(rows, line, strict=True)), clear) for i, line in enumerate(table)}


def _row(value: float | None) -> dict[str, Any]:
    span = None if value is None else [value - 0.1, value + 0.1]
    undefined = {} if value is not None else {"aupr": "class B has no test image"}
    return {
        "macro": {**dict.fromkeys(DECISIVE_SCORES, value), "undefined": undefined},
        "ci95": {"macro": dict.fromkeys(DECISIVE_SCORES, span)},
        "checkpoint": {"kind": "none", "backbone": {
            "family": "vit", "image_size": 224, "tokens": 197, "parameters": 1e6, "gflops": 1.0,
            "mean": [0.5, 0.5, 0.5], "interpolation": "bicubic",
        }},
    }  # fmt: skip


def _difference(one: float | None, other: float | None, clear: float) -> dict[str, Any]:
    if one is None or other is None:
        return {"difference": None, "ci95": None, "real": False, "p": None}
    return {"difference": one - other, "ci95": [one - other] * 2, "real": abs(one - other) > clear, "p": 0.5}
