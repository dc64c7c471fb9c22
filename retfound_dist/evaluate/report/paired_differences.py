"""Paired differences between rows, on the same bootstrap resamples of patients and seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retfound_dist.errors import DataError
from retfound_dist.evaluate.report.score_tables import NAMES, best_of
from retfound_dist.evaluate.results.evaluation_files import Evaluation
from retfound_dist.evaluate.scores import bootstrap, wording
from retfound_dist.evaluate.scores.metrics import Floats

DECIDED_ON = ("aupr", "balanced_accuracy")
"""Macro scores on which rows are told apart; both are fair to rare classes."""
Drawn = Mapping[str, Mapping[str, Floats]]
"""Row -> score -> its value in each resample (R,)."""


def comparison(rows: Mapping[str, Evaluation], resamples: int) -> dict[str, Any]:
    """compare.json: every row's scores, paired differences to `none` and to the best, and both in words."""
    first = next(iter(rows.values()))
    for name, row in rows.items():
        if row.keys != first.keys:
            raise DataError(
                f"row {name} has other test images than the first row: evaluate all rows on one set"
            )
    _, units_N = bootstrap.units_of(first.patients, first.keys, first.units)
    # The same resamples for all rows: only then are two rows' scores in a resample a pair.
    weights_RN = bootstrap.resample(units_N, resamples, 0)
    whole = {name: bootstrap.over_seeds(r.labels_N, r.drawn_from, weights_RN) for name, r in rows.items()}
    drawn = {name: groups["macro"] for name, groups in whole.items()}
    best = {metric: _best(metric, rows) for metric in DECIDED_ON}
    to_best = [line for metric, name in best.items() if name for line in _behind(metric, name, rows, drawn)]
    to_none = _above_none(rows, drawn)
    return {
        "rows": {name: _row(row) for name, row in rows.items()},
        "best": best,
        "differences": to_best,
        "against_none": to_none,
        "ties": ties(rows, whole),
        "sentences": [*_about_none(to_none), *_about_best(best, rows, to_best)],
        **{key: first.metrics[key] for key in ("bootstrap", "classes", "seeds", "split", "versions")},
    }


def gap(metric: str, one: str, other: str, rows: Mapping[str, Evaluation], drawn: Drawn) -> dict[str, Any]:
    """By how much row `one` is above row `other`; None where either score is undefined."""
    a, b = rows[one].metrics["macro"][metric], rows[other].metrics["macro"][metric]
    if a is None or b is None:
        return {"metric": metric, "difference": None, "ci95": None, "real": False}
    return {
        "metric": metric,
        "difference": a - b,
        **bootstrap.paired(drawn[one][metric], drawn[other][metric]),
    }


def ties(
    rows: Mapping[str, Evaluation], drawn: Mapping[str, bootstrap.Drawn]
) -> dict[str, dict[str, list[str]]]:
    """For every score of both definitions the rows that are not told apart from the best one."""
    tied: dict[str, dict[str, list[str]]] = {}
    for kind, names in NAMES.items():
        tied[kind] = {}
        for metric in names:
            known = {n: v for n, r in rows.items() if (v := r.metrics[kind][metric]) is not None}
            top = best_of(list(known.values()), metric)
            best = next((n for n, value in known.items() if value == top), "")
            values = {n: drawn[n][kind][metric] for n in known}
            tied[kind][metric] = [
                n for n in known if n != best and not bootstrap.paired(values[best], values[n])["real"]
            ]
    return tied


def _best(metric: str, rows: Mapping[str, Evaluation]) -> str | None:
    known = {n: r.metrics["macro"][metric] for n, r in rows.items() if r.metrics["macro"][metric] is not None}
    return max(known, key=lambda name: known[name]) if known else None


def _behind(metric: str, best: str, rows: Mapping[str, Evaluation], drawn: Drawn) -> list[dict[str, Any]]:
    differences = [{"best": best, "other": n, **gap(metric, best, n, rows, drawn)} for n in rows if n != best]
    # Undefined differences come last. The first part of the key keeps None from being compared with a
    # number.
    return sorted(differences, key=lambda line: (line["difference"] is None, line["difference"]))


def _above_none(rows: Mapping[str, Evaluation], drawn: Drawn) -> list[dict[str, Any]]:
    """Every row against the first that starts from nothing; empty where there is no such row."""
    none = next((n for n, r in rows.items() if r.metrics["checkpoint"]["kind"] == "none"), None)
    return [
        {"row": name, "none": none, **gap(metric, name, none, rows, drawn)}
        for name in rows
        for metric in DECIDED_ON
        if none is not None and name != none
    ]


def _about_none(lines: list[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(line["row"] for line in lines)
    return [wording.against_none(name, [line for line in lines if line["row"] == name]) for name in names]


def _about_best(
    best: Mapping[str, str | None], rows: Mapping[str, Evaluation], lines: list[dict[str, Any]]
) -> list[str]:
    sentences = []
    for metric, name in best.items():
        if name is None:
            sentences.append(f"{wording.LABELS[metric]} is undefined for every row.")
            continue
        tree = rows[name].metrics
        score = wording.score(tree["macro"][metric], tree["ci95"]["macro"][metric])
        sentences.append(
            wording.best(name, metric, score, [line for line in lines if line["metric"] == metric])
        )
    return sentences


def _row(row: Evaluation) -> dict[str, Any]:
    names = ("checkpoint", "legacy", "macro", "ci95", "per_seed", "over_seeds", "seconds")
    return {name: row.metrics[name] for name in (*names, *row.metrics.keys() & {"probe"})}
