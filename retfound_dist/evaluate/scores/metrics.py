"""The two definitions of the scores, and the scores of each class.

`legacy`: as in RETFound's first evaluator. Confusion matrices are one-vs-rest; scores are means over classes
1..C-1, without the alphabetically first class. `acc` is one-vs-rest, `mcc` is a mean of binary ones. `auroc`
and `aupr` are means over all classes.
`macro`: means over all classes. `accuracy` is top-1, `mcc` and `kappa` are multiclass.

An undefined score (a class that is never predicted has no precision) is None and never 0. Its reason is under
`undefined`.

Shapes: N images, C classes; confusion matrices are (..., C, C) with the truth in rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, confusion_matrix, log_loss, roc_auc_score

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Scores = dict[str, Any]
LEGACY = ("acc", "sensitivity", "specificity", "precision", "auroc", "aupr", "f1", "mcc")
MACRO = (
    "accuracy",
    "balanced_accuracy",
    "auroc",
    "aupr",
    "f1",
    "mcc",
    "kappa",
    "sensitivity",
    "specificity",
    "precision",
    "log_loss",
    "ece",
)
LOWER_IS_BETTER = frozenset(("log_loss", "ece", "mae", "rmse", "mae_grades"))
"""Scores that are losses or errors, of all tasks."""
DIGITS = 8
"""Decimals of a probability. Scores are computed from rounded ones, so that the CSV gives the same scores."""
ECE_BINS = 15
"""Equal-width bins of confidence (Guo et al. 2017)."""
_MIN_PROBABILITY = 1e-12
_ONE_CLASS = "only one class occurs, or only one is predicted"


def evaluate(labels_N: Labels, probabilities_NC: Floats, classes: Sequence[str]) -> Scores:
    """`legacy`, `macro`, `per_class` and `confusion` of predictions, as values for JSON."""
    confusion = confusion_matrix(labels_N, probabilities_NC.argmax(1), labels=range(len(classes)))
    auroc_C, aupr_C = ranking(labels_N, probabilities_NC)
    undefined_reasons = reasons(confusion, classes)
    legacy = legacy_scores(confusion.astype(float)) | {"auroc": auroc_C.mean(), "aupr": aupr_C.mean()}
    macro = macro_scores(confusion.astype(float)) | {
        "auroc": auroc_C.mean(),
        "aupr": aupr_C.mean(),
        "log_loss": mean_log_loss(labels_N, probabilities_NC),
        "ece": calibration_error(labels_N, probabilities_NC),
    }
    return {
        "legacy": _with_undefined(legacy, LEGACY, undefined_reasons["legacy"]),
        "macro": _with_undefined(macro, MACRO, undefined_reasons["macro"]),
        "per_class": _per_class(confusion, auroc_C, aupr_C, classes),
        "confusion": confusion.tolist(),
    }


def one_vs_rest(confusion: Floats) -> dict[str, Floats]:
    """Binary scores of each class, (..., C) each; NaN where not defined.

    `f1_legacy` is the harmonic mean of precision and sensitivity, undefined without a precision;
    `f1` is 2 tp / (2 tp + fp + fn), which is 0 then.
    """
    tp = np.diagonal(confusion, axis1=-2, axis2=-1)
    fn, fp = confusion.sum(-1) - tp, confusion.sum(-2) - tp
    tn = confusion.sum((-2, -1))[..., None] - tp - fn - fp
    sensitivity, precision = _ratio(tp, tp + fn), _ratio(tp, tp + fp)
    return {
        "acc": _ratio(tp + tn, tp + tn + fp + fn),
        "sensitivity": sensitivity,
        "specificity": _ratio(tn, tn + fp),
        "precision": precision,
        "f1_legacy": _ratio(2 * sensitivity * precision, sensitivity + precision),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": _ratio(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))),
    }


def legacy_scores(confusion: Floats) -> dict[str, Floats]:
    """RETFound's confusion-matrix scores, (...) each: the mean over classes 1..C-1."""
    binary = one_vs_rest(confusion)
    binary["f1"] = binary["f1_legacy"]
    # RETFound's misc_measures loops over range(1, C), so it leaves class 0 out. The published tables were
    # made in this way, so only the same mean can be compared with them.
    return {name: binary[name][..., 1:].mean(-1) for name in LEGACY if name in binary}


def macro_scores(confusion: Floats) -> dict[str, Floats]:
    """Scores over all classes, (...) each, from confusion matrices (..., C, C) with the truth in rows."""
    binary = one_vs_rest(confusion)
    n = confusion.sum((-2, -1))
    truth, predicted = confusion.sum(-1), confusion.sum(-2)
    correct = np.diagonal(confusion, axis1=-2, axis2=-1).sum(-1)
    chance = (truth * predicted).sum(-1)
    spread = np.sqrt((n**2 - (truth**2).sum(-1)) * (n**2 - (predicted**2).sum(-1)))
    return {
        "accuracy": _ratio(correct, n),
        "balanced_accuracy": binary["sensitivity"].mean(-1),
        "f1": binary["f1"].mean(-1),
        "mcc": _ratio(correct * n - chance, spread),
        "kappa": _ratio(correct * n - chance, n**2 - chance),
        "sensitivity": binary["sensitivity"].mean(-1),
        "specificity": binary["specificity"].mean(-1),
        "precision": binary["precision"].mean(-1),
    }


def ranking(labels_N: Labels, probabilities_NC: Floats) -> tuple[Floats, Floats]:
    """One-vs-rest AUROC and average precision of each class (C,); NaN where it has no image, or all."""
    classes = probabilities_NC.shape[1]
    auroc_C, aupr_C = np.full(classes, np.nan), np.full(classes, np.nan)
    for c in range(classes):
        truth = labels_N == c
        if 0 < truth.sum() < len(truth):
            auroc_C[c] = roc_auc_score(truth, probabilities_NC[:, c])
            aupr_C[c] = average_precision_score(truth, probabilities_NC[:, c])
    return auroc_C, aupr_C


def mean_log_loss(labels_N: Labels, probabilities_NC: Floats) -> float:
    """Mean of -ln p(true class), in nats; p is kept above 1e-12."""
    # scikit-learn clips at 2e-16, where a probability that was rounded to 0 costs 36 nats; here it costs 28.
    # It also warns where a row does not sum to 1, so clipped rows are scaled again.
    clipped = np.clip(probabilities_NC, _MIN_PROBABILITY, None)
    clipped = clipped / clipped.sum(1, keepdims=True)
    return float(log_loss(labels_N, clipped, labels=range(clipped.shape[1])))


def calibration_error(labels_N: Labels, probabilities_NC: Floats) -> float:
    """Expected calibration error of the top class: |accuracy - confidence| over bins, weighted by images."""
    gaps_NB = calibration_gaps(labels_N, probabilities_NC)
    return float(np.abs(gaps_NB.sum(0)).sum() / len(labels_N))


def calibration_gaps(labels_N: Labels, probabilities_NC: Floats) -> Floats:
    """(N, bins): correct (0 or 1) - confidence, in the bin of each image's confidence; 0 elsewhere."""
    confidence = probabilities_NC.max(1)
    gap = (probabilities_NC.argmax(1) == labels_N) - confidence
    gaps_NB = np.zeros((len(gap), ECE_BINS))
    gaps_NB[np.arange(len(gap)), confidence_bins(confidence)] = gap
    return gaps_NB


def confidence_bins(confidence_N: Floats) -> Labels:
    """The index of each confidence in the bins of the calibration error (N,)."""
    # A bin includes its upper edge (Guo et al.). The clip is for a confidence of 0, and for one that rounding
    # has made larger than 1.
    return np.clip(np.ceil(confidence_N * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)


def reasons(confusion: NDArray[Any], classes: Sequence[str]) -> dict[str, dict[str, str]]:
    """For both definitions, the reason for each score that may be undefined."""
    absent = [c for c, n in zip(classes, confusion.sum(1), strict=True) if n == 0]
    ranks = _absence(absent) or _ONE_CLASS
    legacy = _undefined_binary_reasons(
        confusion[1:].sum(1), confusion[:, 1:].sum(0), np.diagonal(confusion)[1:], classes[1:]
    )
    macro = _undefined_binary_reasons(confusion.sum(1), confusion.sum(0), np.diagonal(confusion), classes)
    return {
        "legacy": legacy | {"auroc": ranks, "aupr": ranks},
        "macro": macro
        | {
            "auroc": ranks,
            "aupr": ranks,
            "balanced_accuracy": macro["sensitivity"],
            "mcc": _ONE_CLASS,
            "kappa": _ONE_CLASS,
        },
    }


def _undefined_binary_reasons(
    truth: NDArray[Any], predicted: NDArray[Any], correct: NDArray[Any], classes: Sequence[str]
) -> dict[str, str]:
    """For each score of one class against the rest: why its mean over classes may be undefined.

    Images of each class: `truth`, all; `predicted`, those predicted as this class; `correct`, those of both.
    """
    absent, never, wrong = (
        [c for c, n in zip(classes, counts, strict=True) if n == 0] for counts in (truth, predicted, correct)
    )
    no_image = _absence(absent)
    unpredicted = f"{_classes_are(never)} never predicted" if never else ""
    either = "; ".join(filter(None, (no_image, unpredicted))) or _ONE_CLASS
    return {
        "sensitivity": no_image,
        "specificity": _ONE_CLASS,
        "precision": unpredicted,
        "mcc": either,
        "f1": f"{_classes_are(wrong)} never predicted correctly: no precision, or both precision and "
        "sensitivity are 0",
    }


def _absence(classes: Sequence[str]) -> str:
    """A phrase without the part or the unit, because all parts of images, volumes and eyes are scored."""
    if not classes:
        return ""
    return (
        f"classes {', '.join(classes)} do not occur"
        if len(classes) > 1
        else f"class {classes[0]} does not occur"
    )


def _classes_are(classes: Sequence[str]) -> str:
    return f"classes {', '.join(classes)} are" if len(classes) > 1 else f"class {', '.join(classes)} is"


def _with_undefined(
    values: dict[str, Any], names: Sequence[str], undefined_reasons: dict[str, str]
) -> Scores:
    """The named scores, None where they are not finite, with the reason for each None."""
    scores: Scores = {name: _finite_or_none(values[name]) for name in names}
    scores["undefined"] = {
        name: undefined_reasons.get(name, "not defined") for name in names if scores[name] is None
    }
    return scores


def _per_class(confusion: NDArray[Any], auroc_C: Floats, aupr_C: Floats, classes: Sequence[str]) -> Scores:
    """Class -> its counts and scores against all other classes. `confusion`: (C, C), truth by row."""
    binary = one_vs_rest(confusion.astype(float))
    rows: Scores = {}
    for c, label in enumerate(classes):
        row: Scores = {"n": int(confusion[c].sum()), "predicted": int(confusion[:, c].sum())}
        for name in ("sensitivity", "specificity", "precision", "f1"):
            row[name] = _finite_or_none(binary[name][c])
        row |= {"auroc": _finite_or_none(auroc_C[c]), "aupr": _finite_or_none(aupr_C[c])}
        row["undefined"] = {
            name: _undefined_reason(row, name) for name, value in row.items() if value is None
        }
        rows[label] = row
    return rows


def _undefined_reason(row: Scores, name: str) -> str:
    if not row["n"]:
        return "the class does not occur"
    return "the class is never predicted" if name in ("precision", "f1") else "no other class occurs"


def _ratio(above: Floats, below: Floats) -> Floats:
    """above / below, NaN where below is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below == 0, np.nan, above / below)


def _finite_or_none(value: Any) -> float | None:
    # JSON has no NaN. Python would write one, which many readers refuse.
    return float(value) if math.isfinite(value) else None


def best_value(values: Sequence[float | None], name: str) -> float | None:
    """The best value of a score: the highest, or the lowest of losses and errors; None without values."""
    defined = [value for value in values if value is not None]
    if not defined:
        return None
    return min(defined) if name in LOWER_IS_BETTER else max(defined)
