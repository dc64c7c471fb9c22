"""Paired differences between the rows of a comparison, whatever its scores.

    pairs = pair_differences(("auroc",), {"none": {"auroc": 0.7}, ...}, {"none": {"auroc": values_R}, ...})

Shapes: R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol

from retfound_dist.errors import DataError
from retfound_dist.evaluate.scores import bootstrap, multiple_comparisons
from retfound_dist.evaluate.scores.metrics import LOWER_IS_BETTER, Floats, Labels, best_value
from retfound_dist.listing.split_units import Unit

RowScores = Mapping[str, Mapping[str, Any]]
"""Row -> score -> its value; None: undefined."""
RowResamples = Mapping[str, Mapping[str, Floats]]
"""Row -> score -> its value in each resample (R,)."""
Line = dict[str, Any]
"""A difference: `metric`, `difference`, `ci95`, `real`, `p`, and the names of its rows."""


class ResampledRow(Protocol):
    """One row of a comparison: an evaluation of classes or of a task."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The test images."""

    @property
    def patients(self) -> tuple[str | None, ...]:
        """The patient of each test image."""

    @property
    def units(self) -> list[Unit]:
        """The bootstrap unit of each test image; empty where it is the patient or the image itself."""


@dataclass(frozen=True)
class RowDifferences:
    """All differences of a comparison."""

    pairs: list[Line]
    """Of all pairs of rows."""
    best: dict[str, str | None]
    """Score -> its best row; None where it is undefined for all."""
    to_best: list[Line]
    to_none: list[Line]
    """Empty without a row of random weights."""

    @property
    def comparisons(self) -> int:
        """Pairs of rows for which Holm's correction counts."""
        return max((line["comparisons"] for line in self.pairs), default=0)

    def trees(self) -> dict[str, Any]:
        """For compare.json."""
        return {
            "best": self.best,
            "differences": self.to_best,
            "against_none": self.to_none,
            "pairs": self.pairs,
        }


def shared_resamples(rows: Mapping[str, ResampledRow], resamples: int) -> Labels:
    """(R, N) weights of the images, the same for all rows, so that their scores in a resample are pairs.

    DataError where the rows have other images.
    """
    first = next(iter(rows.values()))
    for name, row in rows.items():
        if row.keys != first.keys:
            raise DataError(
                f"row {name} has other test images than the first row: evaluate all rows on one set"
            )
    _, units_N = bootstrap.resampling_units(first.patients, first.keys, first.units)
    return bootstrap.resample(units_N, resamples, 0)


def all_differences(
    metrics: Sequence[str], scores: RowScores, resampled: RowResamples, none: str | None
) -> RowDifferences:
    """The differences of all pairs, to the best row of each score, and to `none`, the row of random
    weights."""
    pairs, names = pair_differences(metrics, scores, resampled), list(scores)
    best = {metric: best_row(metric, scores) for metric in metrics}
    return RowDifferences(
        pairs,
        best,
        differences_to_best(best, names, pairs),
        differences_to_none(metrics, names, none, pairs),
    )


def pair_differences(metrics: Sequence[str], scores: RowScores, resampled: RowResamples) -> list[Line]:
    """The differences of all pairs of rows, with p and Holm's correction over all pairs of a metric.

    All pairs are counted, also those that no sentence names: the best row is chosen on the same images, so
    every pair could have been named.
    """
    pairs = []
    for metric in metrics:
        lines = [
            {"one": one, "other": other, **row_difference(metric, one, other, scores, resampled)}
            for one, other in combinations(scores, 2)
        ]
        adjusted = multiple_comparisons.adjust_by_holm([line["p"] for line in lines])
        comparisons = sum(p is not None for p in adjusted)
        for line, p_holm in zip(lines, adjusted, strict=True):
            line |= {"p_holm": p_holm, "comparisons": comparisons}
        pairs += lines
    return pairs


def row_difference(metric: str, one: str, other: str, scores: RowScores, resampled: RowResamples) -> Line:
    """The score of row `one` minus that of row `other`; None where either score is undefined."""
    score, other_score = scores[one][metric], scores[other][metric]
    if score is None or other_score is None:
        return {"metric": metric, "difference": None, "ci95": None, "real": False, "p": None}
    one_R, other_R = resampled[one][metric], resampled[other][metric]
    return {
        "metric": metric,
        "difference": score - other_score,
        **bootstrap.paired_difference(one_R, other_R),
        "p": multiple_comparisons.two_sided_p(one_R - other_R),
    }


def directed(pairs: Sequence[Mapping[str, Any]], metric: str, one: str, other: str) -> Line:
    """The line of a pair as row `one` minus row `other`, without their names."""
    line = next(p for p in pairs if p["metric"] == metric and {p["one"], p["other"]} == {one, other})
    without_names = {key: value for key, value in line.items() if key not in ("one", "other")}
    if line["one"] == one or line["difference"] is None:
        return without_names
    span = line["ci95"] and [-line["ci95"][1], -line["ci95"][0]]
    return {**without_names, "difference": -line["difference"], "ci95": span}


def differences_to_best(
    best: Mapping[str, str | None], rows: Sequence[str], pairs: Sequence[Line]
) -> list[Line]:
    """For each score, the best row minus each other row; the smallest lead first, undefined ones last."""
    lines = []
    for metric, name in best.items():
        if name is None:
            continue
        sign = -1 if metric in LOWER_IS_BETTER else 1
        of_metric = [
            {"best": name, "other": other, **directed(pairs, metric, name, other)}
            for other in rows
            if other != name
        ]
        # The first part of the key avoids comparing None with a number.
        lines += sorted(
            of_metric, key=lambda line: (line["difference"] is None, sign * (line["difference"] or 0))
        )
    return lines


def differences_to_none(
    metrics: Sequence[str], rows: Sequence[str], none: str | None, pairs: Sequence[Line]
) -> list[Line]:
    """Each row minus the row of random weights; empty without such a row."""
    if none is None:
        return []
    return [
        {"row": name, "none": none, **directed(pairs, metric, name, none)}
        for name in rows
        for metric in metrics
        if name != none
    ]


def best_row(metric: str, scores: RowScores) -> str | None:
    """The row with the best score, the first among equals; None where it is undefined for all."""
    best = best_value([row[metric] for row in scores.values()], metric)
    return None if best is None else next(name for name, row in scores.items() if row[metric] == best)


def tied_rows(metric: str, scores: RowScores, resampled: RowResamples) -> list[str]:
    """The rows without a clear difference from the best row."""
    best = best_row(metric, scores)
    return [
        name
        for name, row in scores.items()
        if best is not None
        and name != best
        and row[metric] is not None
        and not bootstrap.paired_difference(resampled[best][metric], resampled[name][metric])["real"]
    ]
