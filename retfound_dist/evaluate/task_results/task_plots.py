"""The plots of a task's page: curves of labels, predicted against true, confusion of grades."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup
from matplotlib.patches import Rectangle
from sklearn.metrics import precision_recall_curve, roc_curve

from retfound_dist.evaluate.report import figures
from retfound_dist.evaluate.report.figures import Line, PointMarker, class_line
from retfound_dist.evaluate.report.training_plots import Plot
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.metrics import LOWER_IS_BETTER, Floats
from retfound_dist.evaluate.task_results.task_evaluation import TaskEvaluation
from retfound_dist.evaluate.tasks.task_facts import (
    DECISIVE,
    MULTILABEL,
    REGRESSION,
    SCORE_LABELS,
    VAL_SCORE,
)
from retfound_dist.evaluate.tasks.task_outputs import predicted_grades
from retfound_dist.runtime.svg_plots import INK, MUTED, colour, new_figure, to_svg

_MOST_POINTS = 3000
"""More points make a page slow to open."""
_LOSS_LABELS = {MULTILABEL: "binary cross entropy", REGRESSION: "smooth L1, standardised"}


def prediction_plots(evaluation: TaskEvaluation) -> list[Plot]:
    """How predictions and truth agree on the test part."""
    if evaluation.facts.kind == MULTILABEL:
        return _ranking_plots(evaluation)
    if evaluation.facts.kind == REGRESSION:
        return [_against_truth(evaluation), _bland_altman(evaluation)]
    return [_grade_confusion(evaluation)]


def _ranking_plots(evaluation: TaskEvaluation) -> list[Plot]:
    """ROC and precision-recall curves, one line for each label."""
    roc, precision = [], []
    legend: list[tuple[int, str]] = []
    for t, name in enumerate(evaluation.facts.targets):
        truth_N = evaluation.targets_NT[:, t]
        known_N = np.isfinite(truth_N)
        if len(np.unique(truth_N[known_N])) < 2:
            continue
        scored = truth_N[known_N], evaluation.predictions_NP[known_N, t]
        false_rate, true_rate, _ = roc_curve(*scored)
        precision_values, recall, _ = precision_recall_curve(*scored)
        roc.append(class_line(false_rate, true_rate, len(legend)))
        precision.append(class_line(recall, precision_values, len(legend)))
        legend.append((len(legend), name))
    note = "One line for each label, over the test images whose answer is known."
    return [
        Plot(
            "ROC of each label",
            Markup(
                figures.line_chart(roc, "1 - specificity", "sensitivity", unit_square=True, diagonal=True)
            ),
            f"{note} Dotted line: guessing.",
            legend,
        ),
        Plot(
            "Precision and recall of each label",
            Markup(figures.line_chart(precision, "recall", "precision", unit_square=True)),
            note,
            legend,
        ),
    ]


def _shown_points(evaluation: TaskEvaluation) -> tuple[Floats, Floats, str]:
    """True and predicted numbers of at most `_MOST_POINTS` images, and a note where some are left out."""
    truth_N, predicted_N = evaluation.targets_NT[:, 0], evaluation.predictions_NP[:, 0]
    if len(truth_N) <= _MOST_POINTS:
        return truth_N, predicted_N, ""
    chosen = np.random.default_rng(0).choice(len(truth_N), _MOST_POINTS, replace=False)
    note = f" {_MOST_POINTS:,} of {len(truth_N):,} images are shown, drawn at random."
    return truth_N[chosen], predicted_N[chosen], note


def _against_truth(evaluation: TaskEvaluation) -> Plot:
    """Predictions over the truth, for a task of one number."""
    truth_N, predicted_N, note = _shown_points(evaluation)
    figure, axes = new_figure()
    ends = [min(truth_N.min(), predicted_N.min()), max(truth_N.max(), predicted_N.max())]
    axes.plot(ends, ends, color=MUTED, linewidth=0.9, linestyle=(0, (2, 3)))
    axes.scatter(truth_N, predicted_N, s=16, color=colour(0), alpha=0.6, linewidths=0)
    name = evaluation.facts.targets[0]
    axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}")
    return Plot(
        "Predicted against true",
        Markup(to_svg(figure)),
        f"One point for each test image. Dotted line: predicted equals true.{note}",
    )


def _bland_altman(evaluation: TaskEvaluation) -> Plot:
    """Difference against mean, with bias and limits of agreement (Bland and Altman, Lancet 1986)."""
    truth_N, predicted_N, note = _shown_points(evaluation)
    difference_N = evaluation.predictions_NP[:, 0] - evaluation.targets_NT[:, 0]
    bias, spread = float(difference_N.mean()), 1.96 * float(difference_N.std(ddof=1))
    figure, axes = new_figure()
    axes.axhline(bias, color=colour(1), linewidth=1.4)
    for limit in (bias - spread, bias + spread):
        axes.axhline(limit, color=colour(1), linewidth=1.0, linestyle=(0, (4, 2)))
    axes.scatter(
        (truth_N + predicted_N) / 2, predicted_N - truth_N, s=16, color=colour(0), alpha=0.6, linewidths=0
    )
    axes.set(xlabel="mean of predicted and true", ylabel="predicted minus true")
    axes.margins(y=0.12)
    return Plot(
        "Bland-Altman",
        Markup(to_svg(figure)),
        f"Line: the bias, {bias:.3g}. Dashed: limits of agreement, {bias - spread:.3g} and "
        f"{bias + spread:.3g}; 95 % of the differences are between them if they are normal.{note}",
    )


def _grade_confusion(evaluation: TaskEvaluation) -> Plot:
    """The confusion matrix of the grades: truth in rows, predictions in columns."""
    grades = evaluation.facts.grades
    truth_N = evaluation.targets_NT[:, 0].astype(int)
    counts = np.zeros((len(grades), len(grades)), dtype=int)
    np.add.at(counts, (truth_N, predicted_grades(evaluation.predictions_NP)), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure, axes = new_figure(height=1.0 + 0.5 * len(grades))
    axes.grid(visible=False)
    for row in range(len(grades)):
        for column in range(len(grades)):
            axes.add_patch(_square(column, row, alpha=0.75 * float(shares[row, column])))
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=INK)
    axes.set(
        xlim=(-0.5, len(grades) - 0.5),
        ylim=(len(grades) - 0.5, -0.5),
        xlabel="predicted grade",
        ylabel="true grade",
    )
    axes.set_xticks(range(len(grades)), grades)
    axes.set_yticks(range(len(grades)), grades)
    return Plot(
        "Confusion of grades",
        Markup(to_svg(figure)),
        "Number of test images. Shading: share of the row. Far from the diagonal are the large errors.",
    )


def _square(column: int, row: int, alpha: float) -> Rectangle:
    return Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour(0), alpha=alpha, linewidth=0)


def curve_plots(rows: Mapping[str, TaskEvaluation]) -> list[Plot]:
    """Training loss and the score that chose the epoch, one line for each seed, one colour for each row."""
    facts = next(iter(rows.values())).facts
    name = VAL_SCORE[facts.kind]
    sign = -1.0 if name in LOWER_IS_BETTER else 1.0
    losses, scores, marks = [], [], []
    for index, row in enumerate(rows.values()):
        for kept in row.metrics["per_seed"]:
            history = [line for line in row.history if line["seed"] == kept["seed"]]
            losses.append(_line(history, "train_loss", index))
            validated = [line for line in history if line.get("val_score") is not None]
            scores.append(_line(validated, "val_score", index, sign))
            marks += [
                PointMarker(line["epoch"], sign * line["val_score"], "kept" if len(rows) == 1 else "", index)
                for line in validated
                if line["epoch"] == kept["epoch"]
            ]
    legend = list(enumerate(rows)) if len(rows) > 1 else []
    label = _LOSS_LABELS.get(facts.kind, "CORN loss")
    plots = [
        Plot(
            "Fine-tuning: training loss",
            Markup(figures.line_chart(losses, "epoch", label, integer_x=True)),
            "One line for each seed. Training uses augmented images.",
            legend,
        )
    ]
    if any(len(line.x) for line in scores):
        plots.append(
            Plot(
                f"Fine-tuning: {SCORE_LABELS[name]} on val",
                Markup(figures.line_chart(scores, "epoch", SCORE_LABELS[name], marks, integer_x=True)),
                "The epoch is chosen by this score (dots). The test part is used once, with this epoch.",
                legend,
            )
        )
    return plots


def _line(history: list[dict[str, object]], key: str, index: int, sign: float = 1.0) -> Line:
    points = [(line["epoch"], line[key]) for line in history if line[key] is not None]
    return class_line(
        [float(epoch) for epoch, _ in points],  # type: ignore[arg-type]
        [sign * float(value) for _, value in points],  # type: ignore[arg-type]
        index,
    )


def interval_plots(rows: Mapping[str, TaskEvaluation]) -> list[Plot]:
    """The decisive scores of each row, with their intervals."""
    facts = next(iter(rows.values())).facts
    chance = {"auroc": 0.5, "concordance": 0.5, "quadratic_kappa": 0.0}
    plots = []
    for name in DECISIVE[facts.kind]:
        values = [row.metrics["scores"][name] for row in rows.values()]
        spans: list[bootstrap.Interval] = [row.metrics["ci95"][name] for row in rows.values()]
        label = SCORE_LABELS[name]
        better = "Lower is better." if name in LOWER_IS_BETTER else ""
        plots.append(
            Plot(
                f"{label[0].upper()}{label[1:]} with 95 % interval",
                Markup(figures.interval_chart(list(rows), values, spans, label, chance.get(name))),
                "Dotted line: guessing." if name in chance else better,
            )
        )
    return plots
