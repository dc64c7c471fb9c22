"""Plots of the test part's predictions and features: ROC, precision and recall, calibration, PCA."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from retfound_dist.evaluate.report import figures, ranking_curves
from retfound_dist.evaluate.report.training_plots import Plot
from retfound_dist.evaluate.results.evaluation_files import Evaluation
from retfound_dist.evaluate.scores import calibration, wording
from retfound_dist.evaluate.scores.metrics import ECE_BINS

MOST_POINTS = 1500
"""Images in a scatter plot: more are a blot, and heavy."""
_FALSE, _TRUE = "1 \u2212 specificity", "sensitivity"
_BAND = "Band: 95 % interval at each point, by bootstrap over patients (images where none is known)."
CALIBRATION = (
    "Test images in bins of the predicted class's probability: below the diagonal the classifier is surer "
    "than it is right. Upright lines: 95 % interval of each share, as if images were independent (Wilson). "
    "Bars: images."
)
FEATURES = (
    "The test part before fine-tuning, as the encoder alone sees it, in the two directions in which its "
    "features differ most (PCA). Classes that lie apart here are easy; ones that do not may still be apart "
    "in another."
)


def class_plots(evaluation: Evaluation) -> list[Plot]:
    """ROC and precision-recall curves of each class, on the test part."""
    per_class = evaluation.metrics["per_class"]

    def legend(name: str) -> list[tuple[int, str]]:
        return [
            (i, f"{c} {wording.score(per_class[c][name], None)}") for i, c in enumerate(evaluation.classes)
        ]

    curves = ranking_curves.class_curves(evaluation.labels_N, evaluation.probabilities_NC)
    roc = figures.curves([one.roc for one in curves], _FALSE, _TRUE, unit_square=True, diagonal=True)
    pr = figures.curves([one.pr for one in curves], "recall", "precision", unit_square=True)
    return [
        Plot(
            "ROC, each class against the rest",
            Markup(roc),
            "With the area under each curve; guessing follows the diagonal.",
            legend("auroc"),
        ),
        Plot(
            "Precision and recall of each class",
            Markup(pr),
            "With the average precision; guessing gives the share of the class.",
            legend("aupr"),
        ),
    ]


def mean_plots(rows: Mapping[str, Evaluation]) -> list[Plot]:
    """ROC and precision-recall curves, mean over classes with bands, one colour a row."""
    legend = list(enumerate(rows)) if len(rows) > 1 else []
    curves = [both for i, row in enumerate(rows.values()) if (both := ranking_curves.mean_curves(row, i))]
    if not curves:
        return []
    drawn_roc = figures.curves([both.roc for both in curves], _FALSE, _TRUE, unit_square=True, diagonal=True)
    drawn_pr = figures.curves([both.pr for both in curves], "recall", "precision", unit_square=True)
    return [
        Plot("ROC, mean over classes", Markup(drawn_roc), _BAND, legend),
        Plot("Precision and recall, mean over classes", Markup(drawn_pr), _BAND, legend),
    ]


def calibration_plots(rows: Mapping[str, Evaluation]) -> list[Plot]:
    """A reliability diagram for each row."""
    plots = []
    for name, row in rows.items():
        bins = calibration.bins(row.labels_N, row.probabilities_NC)
        macro, spans = row.metrics["macro"], row.metrics["ci95"]["macro"]
        svg = figures.reliability(bins, ECE_BINS)
        plots.append(
            Plot(
                name,
                Markup(svg),
                f"Calibration error {wording.score(macro['ece'], spans['ece'])}",
            )
        )
    return plots


def feature_plots(rows: Mapping[str, Evaluation]) -> list[Plot]:
    """Two directions of the frozen features of the test part, one plot for each row that has them."""
    plots = []
    for name, row in rows.items():
        features = row.pictures.get("features")
        if not features or len(features["points"]) != len(row.labels_N):
            continue
        places = _spread(len(row.labels_N))
        first, second = (f"{share:.0%} of the variance" for share in features["explained"])
        of_all = f"{len(places):,}" + (
            f" of {len(row.labels_N):,}" if len(places) < len(row.labels_N) else ""
        )
        points_N2 = np.array(features["points"])
        svg = figures.scatter(points_N2[places], row.labels_N[places], f"PC 1, {first}", f"PC 2, {second}")
        plots.append(
            Plot(
                name,
                Markup(svg),
                f"{of_all} test images",
                list(enumerate(row.classes)),
                shapes=True,
            )
        )
    return plots


def _spread(images: int) -> NDArray[np.int64]:
    """Places of at most `MOST_POINTS` images, evenly over the part: all where they are fewer."""
    # Spread over the part and not its beginning: images are sorted by key, so the first may all be of one
    # class.
    return np.linspace(0, images - 1, min(images, MOST_POINTS)).round().astype(np.int64)
