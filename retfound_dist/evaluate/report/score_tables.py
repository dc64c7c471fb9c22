"""Scores as tables: one line for each row, scores of each class, the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.scores import probe_wording, wording
from retfound_dist.evaluate.scores.metrics import LEGACY, MACRO, best_value
from retfound_dist.evaluate.scores.unit_wording import unit_noun

MetricsByRow = Mapping[str, Mapping[str, Any]]
"""Row of the comparison -> content of its metrics.json."""
Ties = Mapping[str, Mapping[str, Sequence[str]]]
"""`legacy` or `macro` -> score -> rows without a clear difference from the best (`ties`)."""
SCORE_NAMES = {"legacy": LEGACY, "macro": MACRO}
_COLUMNS = {"legacy": LEGACY, "macro": tuple(name for name in MACRO if name != "sensitivity")}
"""Columns of the tables. Macro sensitivity is left out, because it equals the balanced accuracy."""
_TITLES = {
    "macro": "Scores over all classes (macro)",
    "legacy": "Scores as in RETFound's first evaluator (legacy)",
}
_NOTES = {
    "legacy": "On the test part, as in RETFound's first evaluator: each class against the rest, mean over "
    "all classes except the first. ACC is one-vs-rest, so it is always high. AUROC and AUPR are means over "
    "all classes.",
    "macro": "On the test part. Means over all classes. Accuracy is top-1; MCC and kappa are multiclass.",
    "linear": "A linear classifier on frozen features shows what the encoder knows before fine-tuning. "
    "Means over all classes.",
    "attentive": "Learned queries choose which patch tokens count, and a linear classifier follows. It shows "
    "what single patches tell and their mean hides. Means over all classes.",
    "knn": "Predictions are the labels of the nearest training images, by frozen features. "
    "Means over all classes.",
}
PROBE_TITLES = {"linear": "Linear probe", "knn": "k-nearest neighbours", "attentive": "Attentive probe"}
_MAX_GAINS = 8
_TIED_NOTE = " Bold: the best. \u2248: no clear difference from the best (paired bootstrap)."


def score_table(kind: str, metrics: MetricsByRow, ties: Ties | None = None) -> dict[str, Any]:
    """The scores of one definition: a line for each row of the comparison, a column for each score.

    `kind`: `legacy` or `macro`. Returns {"title", "note", "columns": headings, "lines": [{"name", "cells"}]}.
    A cell is {"value": text, "span": its interval as text, "reason": why it is undefined, "best", "tied"}.
    """
    rows = {row: (tree[kind], tree["ci95"][kind]) for row, tree in metrics.items()}
    note = _NOTES[kind] + (_TIED_NOTE if ties else "")
    return _make_table(_TITLES[kind], note, _COLUMNS[kind], rows, (ties or {}).get(kind, {}))


def probe_tables(metrics: MetricsByRow, where: str = "") -> list[dict[str, Any]]:
    """One table for each probe; rows without this probe have no line. `where` is added to its note."""
    tables = []
    for kind, title in PROBE_TITLES.items():
        probes = {row: p[kind] for row, tree in metrics.items() if kind in (p := tree.get("probe") or {})}
        if probes:
            # A probe of an older version may lack scores that were added later.
            names = [n for n in _COLUMNS["macro"] if all(n in probe["macro"] for probe in probes.values())]
            rows = {row: (probe["macro"], probe["ci95"]["macro"]) for row, probe in probes.items()}
            note = " ".join([_NOTES[kind], *_probe_notes(probes), *([where] if where else [])])
            tables.append(_make_table(title, note, names, rows))
    return tables


def _probe_notes(probes: MetricsByRow) -> list[str]:
    """What is said of single rows: the images that were fitted on, and the gain over the linear probe."""
    limits = dict.fromkeys(probe["note"] for probe in probes.values() if "note" in probe)
    gains = (
        f"\u201c{row}\u201d: {sentence}"
        for row, probe in probes.items()
        for sentence in probe_wording.attentive_gain({"attentive": probe})
        # Of a single evaluation the summary says it. A run has too many rows.
        if row and len(probes) <= _MAX_GAINS
    )
    return [*limits, *gains]


def external_tables(metrics: MetricsByRow) -> list[dict[str, Any]]:
    """Two tables of the scores on the external set, macro and legacy; empty without an external set."""
    scores = {row: tree["external"] for row, tree in metrics.items() if "external" in tree}
    if not scores:
        return []
    # All rows have the same external set.
    first = next(iter(scores.values()))
    title = f"External test on {first['data']['path']}"
    note = wording.describe_external(first)
    tables = []
    for kind in ("macro", "legacy"):
        rows = {row: (external[kind], external["ci95"][kind]) for row, external in scores.items()}
        tables.append(_make_table(f"{title}, {kind}", note, _COLUMNS[kind], rows))
    return tables


def external_details(name: str, evaluation: Evaluation) -> list[dict[str, Any]]:
    """Confusion matrix and scores of each class on the external set; empty without an external set."""
    tree = evaluation.metrics.get("external")
    if tree is None:
        return []
    test_details = class_details(name, evaluation)
    title = f"{name}, external test" if name else "External test"
    return [{**test_details, **_class_tables(tree), "name": title, "start": tree["data"]["path"]}]


def _make_table(
    title: str,
    note: str,
    names: Sequence[str],
    rows: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]],
    ties: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """A table as `score_table` returns it, with one line for each row and one column for each score.

    `names`: the scores. `rows`: row -> its scores and their intervals. `ties`: score -> rows that are not
    clearly different from the best.
    """
    best = {name: best_value([scores[name] for scores, _ in rows.values()], name) for name in names}
    lines = [
        {
            "name": row,
            "cells": [
                _score_cell(scores[name], spans.get(name), scores.get("undefined", {}).get(name, ""))
                # A single row is not marked, because it was not compared.
                | {"best": len(rows) > 1 and scores[name] is not None and scores[name] == best[name]}
                | {"tied": row in (ties or {}).get(name, ())}
                for name in names
            ],
        }
        for row, (scores, spans) in rows.items()
    ]
    return {"title": title, "note": note, "columns": [wording.LABELS[name] for name in names], "lines": lines}


def _score_cell(value: float | None, span: Sequence[float] | None, reason: str) -> dict[str, Any]:
    """A score as text; `span` is its interval, `reason` says why it is undefined."""
    interval = (
        f"{wording.format_number(span[0])} to {wording.format_number(span[1])}"
        if value is not None and span
        else ""
    )
    return {
        "value": "-" if value is None else wording.format_number(value),
        "span": interval,
        "reason": reason,
    }


def class_details(name: str, evaluation: Evaluation) -> dict[str, Any]:
    """Confusion matrix and the scores of each class."""
    return {
        "name": name,
        **_class_tables(evaluation.metrics),
        "start": wording.describe_start(evaluation.metrics["checkpoint"]),
        "epochs": ", ".join(f"seed {r['seed']}: epoch {r['epoch']}" for r in evaluation.metrics["per_seed"]),
    }


def _class_tables(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Confusion matrix and scores of each class, for the page. `tree`: content of metrics.json."""
    counts = np.array(tree["confusion"])
    # A class without test images has a row of zeros and not of 0/0.
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    columns = ("n", "sensitivity", "specificity", "precision", "f1", "auroc", "aupr")
    per_class = [
        {
            "name": label,
            "cells": [str(scores["n"])]
            + ["-" if scores[c] is None else wording.format_number(scores[c]) for c in columns[1:]],
        }
        for label, scores in tree["per_class"].items()
    ]
    return {
        "classes": tree["classes"],
        "counts": counts.tolist(),
        "shares": shares.round(3).tolist(),
        "noun": unit_noun(tree),
        "columns": [unit_noun(tree), *(wording.LABELS[c] for c in columns[1:])],
        "per_class": per_class,
    }
