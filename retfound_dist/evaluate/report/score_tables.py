"""Scores as tables: all of a row on one line, each class's own, the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retfound_dist.evaluate.results.evaluation_files import Evaluation
from retfound_dist.evaluate.scores import wording
from retfound_dist.evaluate.scores.metrics import LEGACY, MACRO

Trees = Mapping[str, Mapping[str, Any]]
"""Row -> metrics.json."""
Ties = Mapping[str, Mapping[str, Sequence[str]]]
"""`legacy` or `macro` -> score -> rows that are not told apart from the best (`paired.ties`)."""
NAMES = {"legacy": LEGACY, "macro": MACRO}
_COLUMNS = {"legacy": LEGACY, "macro": tuple(name for name in MACRO if name != "sensitivity")}
"""What is shown: the mean sensitivity over all classes is the balanced accuracy."""
_NOTES = {
    "legacy": "On the test part, as RETFound's first evaluator printed them: one class against the rest, "
    "mean over all classes but the first; ACC is one-vs-rest, so always high; AUROC and AUPR over all.",
    "macro": "On the test part. Means over all classes; accuracy is top-1, MCC and kappa are multiclass.",
    "linear": "A linear classifier on frozen features: what the encoder knows before it is fine-tuned. "
    "Means over all classes.",
    "knn": "The labels of the nearest training images, by frozen features. Means over all classes.",
}
PROBES = {"linear": "Linear probe", "knn": "k-nearest neighbours"}
_LOW_IS_GOOD = ("log_loss", "ece")
_TIED = " Bold: the best; \u2248: not told apart from it by the paired bootstrap."


def score_table(kind: str, metrics: Trees, ties: Ties | None = None) -> dict[str, Any]:
    """`legacy` or `macro`: one line for each row of the comparison, one column for each score."""
    rows = {row: (tree[kind], tree["ci95"][kind]) for row, tree in metrics.items()}
    note = _NOTES[kind] + (_TIED if ties else "")
    return _table(kind, note, _COLUMNS[kind], rows, (ties or {}).get(kind, {}))


def probe_tables(metrics: Trees, where: str = "") -> list[dict[str, Any]]:
    """The same for each probe that was made, `where` added to its note; rows without one have no line."""
    tables = []
    for kind, title in PROBES.items():
        probes = {row: p[kind] for row, tree in metrics.items() if kind in (p := tree.get("probe") or {})}
        if probes:
            # A probe that an older version made may lack scores that came later.
            names = [n for n in _COLUMNS["macro"] if all(n in probe["macro"] for probe in probes.values())]
            rows = {row: (probe["macro"], probe["ci95"]["macro"]) for row, probe in probes.items()}
            tables.append(_table(title, f"{_NOTES[kind]} {where}".strip(), names, rows))
    return tables


def external_tables(metrics: Trees) -> list[dict[str, Any]]:
    """The scores on the external set, in both definitions; no table where none was tested."""
    trees = {row: tree["external"] for row, tree in metrics.items() if "external" in tree}
    if not trees:
        return []
    first = next(iter(trees.values()))
    title = f"External test on {first['data']['path']}"
    rows = {kind: {row: (t[kind], t["ci95"][kind]) for row, t in trees.items()} for kind in NAMES}
    note = wording.external(first)
    return [_table(f"{title}, {kind}", note, _COLUMNS[kind], rows[kind]) for kind in ("macro", "legacy")]


def external_details(name: str, evaluation: Evaluation) -> list[dict[str, Any]]:
    """Confusion matrix and each class's scores on the external set; empty where none was tested."""
    tree = evaluation.metrics.get("external")
    if tree is None:
        return []
    of_test_part = details(name, evaluation)
    title = f"{name}, external test" if name else "External test"
    return [{**of_test_part, **_by_class(tree), "name": title, "start": tree["data"]["path"]}]


def _table(
    title: str,
    note: str,
    names: Sequence[str],
    rows: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]],
    ties: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    best = {name: best_of([scores[name] for scores, _ in rows.values()], name) for name in names}
    lines = [
        {
            "name": row,
            "cells": [
                _cell(scores[name], spans.get(name), scores.get("undefined", {}).get(name, ""))
                # A single row is not marked: it was compared with nothing.
                | {"best": len(rows) > 1 and scores[name] is not None and scores[name] == best[name]}
                | {"tied": row in (ties or {}).get(name, ())}
                for name in names
            ],
        }
        for row, (scores, spans) in rows.items()
    ]
    return {"title": title, "note": note, "columns": [wording.LABELS[name] for name in names], "lines": lines}


def _cell(value: float | None, span: Sequence[float] | None, why: str) -> dict[str, Any]:
    interval = f"{wording.number(span[0])} to {wording.number(span[1])}" if value is not None and span else ""
    return {"value": "-" if value is None else wording.number(value), "span": interval, "why": why}


def best_of(values: Sequence[float | None], name: str) -> float | None:
    """The best value of a score: the highest, but of losses and errors the lowest; None of none."""
    known = [v for v in values if v is not None]
    if not known:
        return None
    return min(known) if name in _LOW_IS_GOOD else max(known)


def details(name: str, evaluation: Evaluation) -> dict[str, Any]:
    """Confusion matrix and the scores of each class."""
    return {
        "name": name,
        **_by_class(evaluation.metrics),
        "start": wording.describe_start(evaluation.metrics["checkpoint"]),
        "epochs": ", ".join(f"seed {r['seed']}: epoch {r['epoch']}" for r in evaluation.metrics["per_seed"]),
    }


def _by_class(tree: Mapping[str, Any]) -> dict[str, Any]:
    counts = np.array(tree["confusion"])
    # A class without test images has a row of zeros, not of 0/0.
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    columns = ("n", "sensitivity", "specificity", "precision", "f1", "auroc", "aupr")
    per_class = [
        {
            "name": label,
            "cells": [str(scores["n"])]
            + ["-" if scores[c] is None else wording.number(scores[c]) for c in columns[1:]],
        }
        for label, scores in tree["per_class"].items()
    ]
    return {
        "classes": tree["classes"],
        "counts": counts.tolist(),
        "shares": shares.round(3).tolist(),
        "columns": ["images", *(wording.LABELS[c] for c in columns[1:])],
        "per_class": per_class,
    }
