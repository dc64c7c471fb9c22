"""Plots of predictions and features of the test part: ROC, precision and recall, calibration, PCA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from retfound_dist.evaluate.clinical.clinical_wording import describe_usefulness
from retfound_dist.evaluate.report import figures, ranking_curves
from retfound_dist.evaluate.report.figures import Line
from retfound_dist.evaluate.report.training_plots import Plot
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.scores import calibration, wording
from retfound_dist.evaluate.scores.metrics import DIGITS, ECE_BINS
from retfound_dist.evaluate.scores.temperature import scale_by_temperature
from retfound_dist.evaluate.scores.unit_wording import unit_noun

MAX_POINTS = 1500
"""Number of images in a scatter plot: more points overlap and make the page large."""
_FALSE_POSITIVES, _TRUE_POSITIVES = "1 \u2212 specificity", "sensitivity"
_BAND = "Band: 95 % interval at each point, by bootstrap over patients (over images if no patient is known)."
CALIBRATION = (
    "Predictions on test are grouped by the probability of the predicted class. Points below the diagonal: "
    "the classifier is overconfident. Vertical lines: 95 % interval of each share, as if predictions were "
    "independent (Wilson). Bars: number of predictions."
)
FEATURES = (
    "Features of the test part before fine-tuning, in the two directions in which they differ most (PCA). "
    "Classes that are apart here are easy to separate. Classes that overlap here may be apart in another "
    "direction."
)
MAX_DECISION_CURVES = 8
"""Number of questions with a plot; metrics.json has the curves of all."""
_MAX_NAME = 30


def class_plots(evaluation: Evaluation) -> list[Plot]:
    """ROC and precision-recall curves of each class, on the test part."""
    per_class = evaluation.metrics["per_class"]

    def legend(name: str) -> list[tuple[int, str]]:
        return [
            (i, f"{c} {wording.format_score(per_class[c][name], None)}")
            for i, c in enumerate(evaluation.classes)
        ]

    curves = ranking_curves.class_curves(evaluation)
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
        chosen_rows = _spread_indices(len(row.labels_N))
        first, second = (f"{share:.0%} of the variance" for share in features["explained"])
        count = f"{len(chosen_rows):,}" + (
            f" of {len(row.labels_N):,}" if len(chosen_rows) < len(row.labels_N) else ""
        )
        points_N2 = np.array(features["points"])
        svg = figures.scatter_chart(
            points_N2[chosen_rows], row.labels_N[chosen_rows], f"PC 1, {first}", f"PC 2, {second}"
        )
        plots.append(
            Plot(
                name,
                Markup(svg),
                f"{count} test {unit_noun(row.metrics)}",
                list(enumerate(row.classes)),
                shapes=True,
            )
        )
    return plots


def reliability_plots(evaluation: Evaluation) -> list[Plot]:
    """Reliability diagrams of the test part before and after temperature scaling."""
    clinical = evaluation.metrics.get("clinical")
    if clinical is None:
        return []
    scaled_NC = scale_by_temperature(evaluation.probabilities_NC, clinical["temperature"]).round(DIGITS)
    plots = []
    for part, title, p_NC in (
        ("uncalibrated", "Reliability before temperature scaling", evaluation.probabilities_NC),
        ("calibrated", "Reliability after temperature scaling", scaled_NC),
    ):
        bins, ece = (
            calibration.calibration_bins(evaluation.labels_N, p_NC),
            clinical["calibration"][part]["ece"],
        )
        svg = figures.reliability_chart(bins, ECE_BINS)
        note = f"Calibration error {wording.format_score(ece['value'], ece['ci95'])}."
        plots.append(Plot(title, Markup(svg), note))
    return plots


def decision_plots(clinical: Mapping[str, Any]) -> list[Plot]:
    """The decision curve of each question, with a band."""
    plots = []
    for name, question in list(clinical["questions"].items())[:MAX_DECISION_CURVES]:
        curve = question["decision_curve"]
        x, model, everybody = (np.array(curve[key]) for key in ("thresholds", "model", "treat_all"))
        # Where nobody is treated any more, there is nothing to see.
        end = min(len(x), int(np.flatnonzero((model != 0) | (everybody > 0)).max(initial=0)) + 6)
        x, model, everybody = x[:end], model[:end], everybody[:end]
        # Treating everybody has a very negative benefit at high thresholds, which would hide everything else.
        floor = -0.25 * max(model.max(), everybody.max(), 0.01)
        in_frame = everybody >= floor
        spans = np.array([span or [value, value] for span, value in zip(curve["ci95"], model, strict=False)])
        low, high = np.maximum(spans, floor).T
        lines = [
            Line(x, np.maximum(model, floor), 0, band=(low, high)),
            Line(x[in_frame], everybody[in_frame], 1),
            Line(x, np.zeros(len(x)), 2),
        ]
        svg, usefulness = (
            figures.line_chart(lines, "threshold probability", "net benefit"),
            describe_usefulness(question),
        )
        plots.append(
            Plot(
                f"Decision curve: {name} or not",
                Markup(svg),
                f"{usefulness[0].upper()}{usefulness[1:]}",
                [(0, "act by the classifier"), (1, "treat everybody"), (2, "treat nobody")],
            )
        )
    return plots


def subgroup_plots(subgroups: Mapping[str, Any]) -> list[Plot]:
    """The AUROC of each group with its interval, one plot for each column."""
    plots = []
    for name, column in subgroups["columns"].items():
        groups = column["groups"]
        label = wording.LABELS["auroc"]
        svg = figures.interval_chart(
            [_plain(group) for group in groups],
            [group["scores"]["auroc"] for group in groups.values()],
            [group["ci95"]["auroc"] for group in groups.values()],
            label,
            0.5,
        )
        plots.append(Plot(f"{label} by {name}", Markup(svg), "Dotted line: guessing."))
    return plots


def _plain(name: str) -> str:
    """A name for a plot: short, and without signs that matplotlib reads as a formula."""
    short = name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}\u2026"
    return short.replace("$", r"\$")


def _spread_indices(images: int) -> NDArray[np.int64]:
    """Indices of at most `MAX_POINTS` images, evenly spread."""
    # Spread, because images are sorted by key, so the first ones may all be of one class.
    return np.linspace(0, images - 1, min(images, MAX_POINTS)).round().astype(np.int64)
