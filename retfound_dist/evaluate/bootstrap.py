"""95 % intervals by bootstrap over patients (volumes, images where no patient is known), and over seeds.

A resample draws as many patients as there are, with replacement; all images of a patient come along
as often as it was drawn. So a resample is a weight for each image, and all resamples are scored at
once. The scores are those of `metrics`, weighted; tests hold them equal to scikit-learn's. Where there are
several fine-tunings, a resample draws as many of them too, and scores the mean of their probabilities.

Shapes: N images, C classes, R resamples, S seeds, K different draws of seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.evaluate.metrics import (
    LEGACY,
    MACRO,
    Floats,
    Labels,
    calibration_gaps,
    legacy_scores,
    macro_scores,
)
from retfound_dist.units import Unit, weakest

Interval = list[float] | None
Drawn = dict[str, dict[str, Floats]]
"""`legacy` and `macro`, each score for each resample (R,); NaN where not defined there."""
LEVEL = 0.95
_CHUNK = 4_000_000
"""Weights scored at a time."""
_TINY = 1e-12
_MOST_UNDEFINED = 0.5
"""No interval where more resamples than this leave the score undefined."""


def units_of(
    patients: Sequence[str | None], keys: Sequence[str], units: Sequence[Unit] = ()
) -> tuple[str, NDArray[np.int64]]:
    """(`patient`, `volume`, `folder` or `image`, each image's unit number (N,)).

    `units` are the images' own where they are known (`Part.units`): slices of one volume are one draw, not
    many, for they say nearly the same. The kind is the weakest one there is; what is known to belong together
    is drawn together all the same.
    """
    kind, names = "image", list(keys)
    if all(p is not None for p in patients):
        kind, names = "patient", [str(p) for p in patients]
    elif units:
        kind = weakest(Counter(one for one, _ in units))
        names = [f"{one} {name}" for one, name in units]
    _, numbers = np.unique(names, return_inverse=True)
    return kind, numbers.astype(np.int64)


def resample(units_N: NDArray[np.int64], resamples: int, seed: int) -> Floats:
    """(R, N): how often each image is in each resample."""
    count = int(units_N.max()) + 1
    draw = np.random.default_rng([seed, count])
    drawn = draw.integers(0, count, size=(resamples, count))
    times_RU = np.zeros((resamples, count))
    np.add.at(times_RU, (np.arange(resamples)[:, None], drawn), 1.0)
    return times_RU[:, units_N]


def mean_of(seeds_SNC: Floats) -> Floats:
    """What several fine-tunings say together (N, C)."""
    mean_NC: Floats = seeds_SNC.mean(0)
    return mean_NC


def over_seeds(
    labels_N: Labels, seeds_SNC: Floats, weights_RN: Floats, together: Callable[[Floats], Floats] = mean_of
) -> Drawn:
    """Scores of what the seeds say together, each resample by a draw of the seeds.

    The draws follow from the numbers of seeds and resamples alone: two rows of a comparison are paired by
    seed as by patient.
    """
    seeds, resamples = len(seeds_SNC), len(weights_RN)
    drawn_RS = np.random.default_rng([seeds, resamples]).integers(0, seeds, (resamples, seeds))
    sets_KS, set_R = np.unique(np.sort(drawn_RS), axis=0, return_inverse=True)
    found: Drawn = {
        kind: {name: np.empty(resamples) for name in names}
        for kind, names in (("legacy", LEGACY), ("macro", MACRO))
    }
    for place, set_S in enumerate(sets_KS):
        here_R = set_R.reshape(-1) == place
        drawn = scores(labels_N, together(seeds_SNC[set_S]), weights_RN[here_R])
        for kind, group in found.items():
            for name, values_R in group.items():
                values_R[here_R] = drawn[kind][name]
    return found


def scores(labels_N: Labels, probabilities_NC: Floats, weights_RN: Floats) -> Drawn:
    """The scores of one set of predictions in every resample."""
    rows = max(1, _CHUNK // max(1, len(labels_N)))
    chunks = [
        _scores(labels_N, probabilities_NC, weights_RN[start : start + rows])
        for start in range(0, len(weights_RN), rows)
    ]
    return {
        kind: {name: np.concatenate([chunk[kind][name] for chunk in chunks]) for name in names}
        for kind, names in (("legacy", LEGACY), ("macro", MACRO))
    }


def intervals(drawn: Drawn) -> dict[str, dict[str, Interval]]:
    """The percentile interval of each score."""
    return {kind: {name: interval(values) for name, values in group.items()} for kind, group in drawn.items()}


def interval(values_R: Floats) -> Interval:
    """[2.5 %, 97.5 %] over the resamples where the score is defined; None where most are not."""
    defined = values_R[np.isfinite(values_R)]
    if len(defined) < (1 - _MOST_UNDEFINED) * len(values_R) or not len(defined):
        return None
    tail = (1 - LEVEL) / 2
    return [float(v) for v in np.quantile(defined, [tail, 1 - tail])]


def paired(one: Floats, other: Floats) -> dict[str, Any]:
    """The interval of the difference of two scores on the same resamples; `real`: it leaves 0 out."""
    span = interval(one - other)
    return {"ci95": span, "real": span is not None and (span[0] > 0 or span[1] < 0)}


def _scores(labels_N: Labels, probabilities_NC: Floats, weights_RN: Floats) -> Drawn:
    classes = probabilities_NC.shape[1]
    cells = np.eye(classes * classes)[labels_N * classes + probabilities_NC.argmax(1)]
    confusion_RCC = (weights_RN @ cells).reshape(-1, classes, classes)
    total_R = weights_RN.sum(1)
    ranked = [weighted_ranking(labels_N == c, probabilities_NC[:, c], weights_RN) for c in range(classes)]
    curves = {"auroc": _mean(pair[0] for pair in ranked), "aupr": _mean(pair[1] for pair in ranked)}
    true_N = np.clip(probabilities_NC, _TINY, None)[np.arange(len(labels_N)), labels_N]
    gaps_RB = weights_RN @ calibration_gaps(labels_N, probabilities_NC)
    extra = {"log_loss": weights_RN @ -np.log(true_N) / total_R, "ece": np.abs(gaps_RB).sum(1) / total_R}
    return {
        "legacy": legacy_scores(confusion_RCC) | curves,
        "macro": macro_scores(confusion_RCC) | curves | extra,
    }


def _mean(values: Iterable[Floats]) -> Floats:
    total: Floats = np.mean(list(values), axis=0)
    return total


def weighted_ranking(
    truth_N: NDArray[np.bool_], score_N: Floats, weights_RN: Floats
) -> tuple[Floats, Floats]:
    """AUROC and average precision of one class for each weighting, (R,) both; ties as in scikit-learn."""
    order = np.argsort(-score_N, kind="stable")
    last_of_tie = np.flatnonzero(np.append(np.diff(score_N[order]) != 0, True))
    weights = weights_RN[:, order]
    positive = np.cumsum(weights * truth_N[order], axis=1)[:, last_of_tie]
    negative = np.cumsum(weights * ~truth_N[order], axis=1)[:, last_of_tie]
    positives, negatives = positive[:, -1], negative[:, -1]
    new_positive = np.diff(positive, prepend=0)
    new_negative = np.diff(negative, prepend=0)
    seen = positive + negative
    precision = positive / np.where(seen > 0, seen, 1)
    with np.errstate(invalid="ignore"):  # 0 / 0 where the class has no weight, or all
        area = (new_negative * (positive - new_positive / 2)).sum(1) / (positives * negatives)
        average = (new_positive * precision).sum(1) / positives
    return area, np.where(negatives == 0, np.nan, average)
