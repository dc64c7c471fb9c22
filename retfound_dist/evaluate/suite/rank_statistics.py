"""Compares rows over several labelled sets: mean ranks, wins and ties, tests over sets.

Source: Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7 (2006).
Shapes: S sets, R rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.evaluate.scores.multiple_comparisons import ALPHA, adjust_by_holm

ComparedSets = Mapping[str, Mapping[str, Any]]
"""Labelled set -> content of its compare.json, all with the same rows."""
_MOST_ENUMERATED_SETS = 16
"""Up to so many sets, all signs of the differences are enumerated if differences are equal or 0."""


def rank_summary(metric: str, sets: ComparedSets) -> dict[str, Any]:
    """Everything about the ranks of the rows by one macro score, as plain values for suite.json.

    Sets where the score of some row is undefined are left out, and named in `undefined`.
    """
    rows = list(next(iter(sets.values()))["rows"])
    scores = {name: [tree["rows"][row]["macro"][metric] for row in rows] for name, tree in sets.items()}
    used = [name for name, values in scores.items() if None not in values]
    scores_SR = np.array([scores[name] for name in used], dtype=np.float64).reshape(len(used), len(rows))
    ranks_SR = ranks_by_set(scores_SR)
    return {
        "metric": metric,
        "rows": rows,
        "sets": used,
        "undefined": [name for name in scores if name not in used],
        "ranks": {
            name: dict(zip(rows, row, strict=True)) for name, row in zip(used, ranks_SR.tolist(), strict=True)
        },
        "mean_rank": dict(zip(rows, ranks_SR.mean(0).tolist(), strict=True)) if used else {},
        "pairs": _pairs(metric, rows, scores_SR, [sets[name] for name in used]),
        "smallest_p": smallest_p(len(used)),
        "friedman_p": friedman_p(scores_SR),
        "critical_difference": nemenyi_difference(len(rows), len(used)),
    }


def ranks_by_set(scores_SR: Floats) -> Floats:
    """(S, R): the rank of each row on each set. The highest score has rank 1; equal scores share the mean."""
    if not len(scores_SR):
        return np.empty_like(scores_SR)
    ranks_SR: Floats = stats.rankdata(-scores_SR, method="average", axis=1)
    return ranks_SR


def count_wins(metric: str, one: str, other: str, sets: Sequence[Mapping[str, Any]]) -> tuple[int, int, int]:
    """Sets where row `one` is better, where the bootstrap shows no difference, and where it is worse."""
    wins = losses = 0
    for tree in sets:
        pair = next(
            p for p in tree["pairs"] if p["metric"] == metric and {p["one"], p["other"]} == {one, other}
        )
        if pair["real"]:
            better = (pair["difference"] > 0) == (pair["one"] == one)
            wins, losses = wins + better, losses + (not better)
    return wins, len(sets) - wins - losses, losses


def signed_rank_p(difference_S: Floats) -> float:
    """Two-sided p of the Wilcoxon signed-rank test over sets. Differences of 0 are left out.

    The p is exact for few sets, also where differences are equal: the normal approximation would give a p
    that so few sets cannot give.
    """
    nonzero = difference_S[difference_S != 0]
    if not len(nonzero):
        return 1.0
    tied = len(np.unique(np.abs(nonzero))) < len(nonzero)
    if not tied:
        return float(stats.wilcoxon(nonzero, method="auto").pvalue)
    if len(nonzero) > _MOST_ENUMERATED_SETS:
        return float(stats.wilcoxon(nonzero, method="asymptotic").pvalue)
    every_sign = stats.PermutationMethod(n_resamples=2 ** len(nonzero))
    return float(stats.wilcoxon(nonzero, method=every_sign).pvalue)


def smallest_p(sets: int) -> float:
    """The smallest two-sided p of the signed-rank test: all signs are equal, one of 2^(S - 1) cases."""
    return min(1.0, 2.0 ** (1 - sets))


def friedman_p(scores_SR: Floats) -> float | None:
    """p of Friedman's test that all rows have the same rank. None with fewer than 3 rows or 2 sets."""
    sets, rows = scores_SR.shape
    if rows < 3 or sets < 2:
        return None
    with np.errstate(invalid="ignore"):  # 0 / 0 where all rows have the same scores on every set
        p = float(stats.friedmanchisquare(*scores_SR.T).pvalue)
    return p if np.isfinite(p) else None


def nemenyi_difference(rows: int, sets: int) -> float | None:
    """Nemenyi's critical difference of mean ranks at level 0.05. None without two rows or a set."""
    if rows < 2 or not sets:
        return None
    quantile = float(stats.studentized_range.ppf(1 - ALPHA, rows, np.inf)) / np.sqrt(2)
    return float(quantile * np.sqrt(rows * (rows + 1) / (6 * sets)))


def _pairs(
    metric: str, rows: Sequence[str], scores_SR: Floats, sets: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Wins, ties, losses and the test of each pair of rows, with Holm's correction over all pairs."""
    pairs: list[dict[str, Any]] = []
    for (i, one), (j, other) in combinations(enumerate(rows), 2):
        wins, ties, losses = count_wins(metric, one, other, sets)
        p = signed_rank_p(scores_SR[:, i] - scores_SR[:, j]) if len(scores_SR) else None
        pairs.append({"one": one, "other": other, "wins": wins, "ties": ties, "losses": losses, "p": p})
    adjusted = adjust_by_holm([pair["p"] for pair in pairs])
    return [{**pair, "p_holm": p_holm} for pair, p_holm in zip(pairs, adjusted, strict=True)]
