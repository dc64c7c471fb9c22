"""Plots of predictions and features of the test part: ROC, precision and recall, calibration, PCA."""

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

MAX_POINTS = 1500
"""Number of images in a scatter plot: more points overlap and make the page large."""
_FALSE_POSITIVES, _TRUE_POSITIVES = "1 \u2212 specificity", "sensitivity"
_BAND = "Band: 95 % interval at each point, by bootstrap over patients (over images if no patient is known)."
CALIBRATION = (
    "Test images are grouped by the probability of the predicted class. Points below the diagonal: the "
    "classifier is overconfident. Vertical lines: 95 % interval of each share, as if images were independent "
    "(Wilson). Bars: number of images."
)
FEATURES = (
    "Features of the test part before fine-tuning, in the two directions in which they differ most (PCA). "
    "Classes that are apart here are easy to separate. Classes that overlap here may be apart in another "
    "direction."
)


def class_plots(evaluation: Evaluation) -> list[Plot]:
    """ROC and precision-recall curves of each class, on the test part."""
    per_class = evaluation.metrics["per_class"]

    def legend(name: str) -> list[tuple[int, str]]:
        return [
            (i, f"{c} {wording.format_score(per_class[c][name], None)}")
            for i, c in enumerate(evaluation.classes)
        ]

    curves = ranking_curves.class_curves(evaluation.labels_N, evaluation.probabilities_NC)
    roc = figures.line_chart(
        [pair.roc for pair in curves], _FALSE_POSITIVES, _TRUE_POSITIVES, unit_square=True, diagonal=True
    )
    pr = figures.line_chart([pair.pr for pair in curves], "recall", "precision", unit_square=True)
    return [
        Plot(
            "ROC, each class against the rest",
            Markup(roc),
            "The legend has the area under each curve. Guessing follows the diagonal.",
            legend("auroc"),
        ),
        Plot(
            "Precision and recall of each class",
            Markup(pr),
            "The legend has the average precision. Guessing gives the share of the class.",
            legend("aupr"),
        ),
    ]


def mean_plots(rows: Mapping[str, Evaluation]) -> list[Plot]:
    """ROC and precision-recall curves, mean over classes with bands, one colour for each row."""
    legend = list(enumerate(rows)) if len(rows) > 1 else []
    curves = [pair for i, row in enumerate(rows.values()) if (pair := ranking_curves.mean_curves(row, i))]
    if not curves:
        return []
    roc_svg = figures.line_chart(
        [pair.roc for pair in curves], _FALSE_POSITIVES, _TRUE_POSITIVES, unit_square=True, diagonal=True
    )
    pr_svg = figures.line_chart([pair.pr for pair in curves], "recall", "precision", unit_square=True)
    return [
        Plot("ROC, mean over classes", Markup(roc_svg), _BAND, legend),
        Plot("Precision and recall, mean over classes", Markup(pr_svg), _BAND, legend),
    ]


def calibration_plots(rows: Mapping[str, Evaluation]) -> list[Plot]:
    """A reliability diagram for each row."""
    plots = []
    for name, row in rows.items():
        bins = calibration.calibration_bins(row.labels_N, row.probabilities_NC)
        macro, spans = row.metrics["macro"], row.metrics["ci95"]["macro"]
        svg = figures.reliability_chart(bins, ECE_BINS)
        plots.append(
            Plot(
                name,
                Markup(svg),
                f"Calibration error {wording.format_score(macro['ece'], spans['ece'])}",
            )
        )
    return plots


def feature_plots(rows: Mapping[str, Evaluation]) -> list[Plot]:
    """The frozen features of the test part in two directions, one plot for each row that has them."""
    plots = []
    for name, row in rows.items():
        features = row.pictures.get("features")
        if not features or len(features["points"]) != len(row.labels_N):
            continue
        shown = _spread_indices(len(row.labels_N))
        first, second = (f"{share:.0%} of the variance" for share in features["explained"])
        count = f"{len(shown):,}" + (f" of {len(row.labels_N):,}" if len(shown) < len(row.labels_N) else "")
        points_N2 = np.array(features["points"])
        svg = figures.scatter_chart(
            points_N2[shown], row.labels_N[shown], f"PC 1, {first}", f"PC 2, {second}"
        )
        plots.append(
            Plot(
                name,
                Markup(svg),
                f"{count} test images",
                list(enumerate(row.classes)),
                shapes=True,
            )
        )
    return plots


def _spread_indices(images: int) -> NDArray[np.int64]:
    """Indices of at most `MAX_POINTS` images, evenly spread."""
    # Spread, because images are sorted by key, so the first ones may all be of one class.
    return np.linspace(0, images - 1, min(images, MAX_POINTS)).round().astype(np.int64)
