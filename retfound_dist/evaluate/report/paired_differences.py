"""Paired differences between rows, on the same bootstrap resamples of patients and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from retfound_dist.errors import DataError
from retfound_dist.evaluate.report.score_tables import SCORE_NAMES, best_value
from retfound_dist.evaluate.results.evaluation_files import Evaluation
from retfound_dist.evaluate.scores import bootstrap, comparison_wording, multiple_comparisons, wording
from retfound_dist.evaluate.scores.metrics import Floats

DECISIVE_SCORES = ("aupr", "balanced_accuracy")
"""Macro scores for comparing rows; both give rare classes the same weight as common ones."""
RowResamples = Mapping[str, Mapping[str, Floats]]
"""Row -> score -> its value in each resample (R,)."""


def comparison(rows: Mapping[str, Evaluation], resamples: int) -> dict[str, Any]:
    """compare.json: scores of each row, paired differences to `none` and to the best row, and sentences."""
    first = next(iter(rows.values()))
    for name, row in rows.items():
        if row.keys != first.keys:
            raise DataError(
                f"row {name} has other test images than the first row: evaluate all rows on one set"
            )
    _, units_N = bootstrap.resampling_units(first.patients, first.keys, first.units)
    # The same resamples for all rows, so that the scores of two rows in a resample are a pair.
    weights_RN = bootstrap.resample(units_N, resamples, 0)
    all_resampled = {
        name: bootstrap.scores_over_seeds(r.labels_N, r.seed_probabilities_SNC, weights_RN)
        for name, r in rows.items()
    }
    resampled = {name: groups["macro"] for name, groups in all_resampled.items()}
    pairs = pair_differences(rows, resampled)
    best = {metric: _best(metric, rows) for metric in DECISIVE_SCORES}
    to_best = [
        line
        for metric, name in best.items()
        if name
        for line in _differences_to_best(metric, name, rows, pairs)
    ]
    to_none = _differences_to_none(rows, pairs)
    return {
        "rows": {name: _row(row) for name, row in rows.items()},
        "best": best,
        "differences": to_best,
        "against_none": to_none,
        "pairs": pairs,
        "ties": ties(rows, all_resampled),
        "sentences": [
            *_sentences_about_none(to_none),
            *_sentences_about_best(best, rows, to_best),
            *comparison_wording.describe_too_few_resamples(resamples, _comparison_count(pairs)),
        ],
        **{key: first.metrics[key] for key in ("bootstrap", "classes", "seeds", "split", "versions")},
    }


def pair_differences(rows: Mapping[str, Evaluation], resampled: RowResamples) -> list[dict[str, Any]]:
    """The differences of all pairs of rows, with p and Holm's correction over all pairs of a metric.

    All pairs are counted, also those that no sentence names: the best row is chosen on the same images, so
    every pair could have been named.
    """
    pairs = [
        {"one": one, "other": other, **row_difference(metric, one, other, rows, resampled)}
        for metric in DECISIVE_SCORES
        for one, other in combinations(rows, 2)
    ]
    for metric in DECISIVE_SCORES:
        lines = [line for line in pairs if line["metric"] == metric]
        adjusted = multiple_comparisons.adjust_by_holm([line["p"] for line in lines])
        known = sum(p is not None for p in adjusted)
        for line, p_holm in zip(lines, adjusted, strict=True):
            line |= {"p_holm": p_holm, "comparisons": known}
    return pairs


def row_difference(
    metric: str, one: str, other: str, rows: Mapping[str, Evaluation], resampled: RowResamples
) -> dict[str, Any]:
    """The score of row `one` minus that of row `other`; None where either score is undefined."""
    score, other_score = rows[one].metrics["macro"][metric], rows[other].metrics["macro"][metric]
    if score is None or other_score is None:
        return {"metric": metric, "difference": None, "ci95": None, "real": False, "p": None}
    one_R, other_R = resampled[one][metric], resampled[other][metric]
    return {
        "metric": metric,
        "difference": score - other_score,
        **bootstrap.paired_difference(one_R, other_R),
        "p": multiple_comparisons.two_sided_p(one_R - other_R),
    }


def directed(pairs: Sequence[Mapping[str, Any]], metric: str, one: str, other: str) -> dict[str, Any]:
    """The line of a pair as row `one` minus row `other`, without their names."""
    line = next(p for p in pairs if p["metric"] == metric and {p["one"], p["other"]} == {one, other})
    without_names = {key: value for key, value in line.items() if key not in ("one", "other")}
    if line["one"] == one or line["difference"] is None:
        return without_names
    span = line["ci95"] and [-line["ci95"][1], -line["ci95"][0]]
    return {**without_names, "difference": -line["difference"], "ci95": span}


def ties(
    rows: Mapping[str, Evaluation], resampled: Mapping[str, bootstrap.ResampledScores]
) -> dict[str, dict[str, list[str]]]:
    """For each score of both definitions, the rows without a clear difference from the best row."""
    tied: dict[str, dict[str, list[str]]] = {}
    for kind, names in SCORE_NAMES.items():
        tied[kind] = {}
        for metric in names:
            known = {n: v for n, r in rows.items() if (v := r.metrics[kind][metric]) is not None}
            top = best_value(list(known.values()), metric)
            best = next((n for n, value in known.items() if value == top), "")
            values = {n: resampled[n][kind][metric] for n in known}
            tied[kind][metric] = [
                n
                for n in known
                if n != best and not bootstrap.paired_difference(values[best], values[n])["real"]
            ]
    return tied


def _best(metric: str, rows: Mapping[str, Evaluation]) -> str | None:
    known = {n: r.metrics["macro"][metric] for n, r in rows.items() if r.metrics["macro"][metric] is not None}
    return max(known, key=lambda name: known[name]) if known else None


def _comparison_count(pairs: Sequence[Mapping[str, Any]]) -> int:
    return max((line["comparisons"] for line in pairs), default=0)


def _differences_to_best(
    metric: str, best: str, rows: Mapping[str, Evaluation], pairs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    differences = [{"best": best, "other": n, **directed(pairs, metric, best, n)} for n in rows if n != best]
    # Undefined differences come last. The first part of the key avoids comparing None with a number.
    return sorted(differences, key=lambda line: (line["difference"] is None, line["difference"]))


def _differences_to_none(
    rows: Mapping[str, Evaluation], pairs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Each row compared with the first row of random weights; empty without such a row."""
    none = next((n for n, r in rows.items() if r.metrics["checkpoint"]["kind"] == "none"), None)
    return [
        {"row": name, "none": none, **directed(pairs, metric, name, none)}
        for name in rows
        for metric in DECISIVE_SCORES
        if none is not None and name != none
    ]


def _sentences_about_none(lines: list[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(line["row"] for line in lines)
    return comparison_wording.describe_gains(
        {name: [line for line in lines if line["row"] == name] for name in names}
    )


def _sentences_about_best(
    best: Mapping[str, str | None], rows: Mapping[str, Evaluation], lines: list[dict[str, Any]]
) -> list[str]:
    sentences = []
    for metric, name in best.items():
        if name is None:
            sentences.append(f"{wording.LABELS[metric]} is undefined for every row.")
            continue
        tree = rows[name].metrics
        score = wording.format_score(tree["macro"][metric], tree["ci95"]["macro"][metric])
        differences = [line for line in lines if line["metric"] == metric]
        sentences.append(comparison_wording.describe_best(name, metric, score, differences))
    return sentences


def _row(row: Evaluation) -> dict[str, Any]:
    names = ("checkpoint", "legacy", "macro", "ci95", "per_seed", "over_seeds", "seconds")
    return {
        name: row.metrics[name] for name in (*names, *row.metrics.keys() & {"probe", "finetune", "speed"})
    }
