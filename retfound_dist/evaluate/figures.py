"""The report's plots as inline SVG, drawn as `retfound_dist/drawing.py` says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from retfound_dist.drawing import COLOURS as COLOURS
from retfound_dist.drawing import MUTED, colour, new_figure, to_svg
from retfound_dist.evaluate.metrics import Floats, Labels

_GRID_POINTS = np.linspace(0, 1, 201)


@dataclass(frozen=True)
class Line:
    """One curve; `colour` counts from 0, a dashed or thin line is the lesser one of its colour."""

    x: Sequence[float] | Floats
    y: Sequence[float] | Floats
    colour: int = 0
    dashed: bool = False
    thin: bool = False


@dataclass(frozen=True)
class Mark:
    """A point to notice, with a word beside it."""

    x: float
    y: float
    text: str
    colour: int = 0


def curves(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    marks: Sequence[Mark] = (),
    unit_square: bool = False,
    diagonal: bool = False,
    whole_x: bool = False,
) -> str:
    """A line chart as SVG; `unit_square` fixes both axes to 0-1."""
    figure, axes = new_figure()
    if diagonal:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (2, 3)))
    for line in lines:
        axes.plot(
            line.x,
            line.y,
            color=colour(line.colour),
            linewidth=0.8 if line.thin else 1.6,
            linestyle=(0, (4, 2)) if line.dashed else "-",
            alpha=0.55 if line.thin else 1.0,
            solid_joinstyle="round",
            marker="o" if len(line.x) == 1 else "",
            markersize=4,
        )
    for mark in marks:
        axes.plot([mark.x], [mark.y], "o", color=colour(mark.colour), markersize=6)
        axes.annotate(
            mark.text, (mark.x, mark.y), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8
        )
    if unit_square:
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    if whole_x:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.12)
    axes.set(xlabel=x_label, ylabel=y_label)
    return to_svg(figure)


def whiskers(
    names: Sequence[str],
    values: Sequence[float | None],
    spans: Sequence[Sequence[float] | None],
    label: str,
    chance: float | None = None,
) -> str:
    """A dot with its interval for each row, the first on top; a dotted line where guessing lands."""
    figure, axes = new_figure(height=0.9 + 0.42 * len(names))
    for place, (value, span) in enumerate(zip(values, spans, strict=True)):
        y = len(names) - 1 - place
        if value is None:
            axes.text(
                0.5,
                y,
                "undefined",
                ha="center",
                va="center",
                color=MUTED,
                transform=axes.get_yaxis_transform(),
            )
            continue
        if span is not None:
            axes.plot(span, [y, y], color=colour(place), linewidth=2.2, solid_capstyle="round")
        axes.plot([value], [y], "o", color=colour(place), markersize=7)
        axes.annotate(
            f"{value:.3f}", (value, y), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8
        )
    if chance is not None:
        axes.axvline(chance, color=MUTED, linewidth=0.9, linestyle=(0, (2, 3)))
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_ylim(-0.6, len(names) - 0.3)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(label)
    axes.margins(x=0.08)
    return to_svg(figure)


def roc_lines(labels_N: Labels, probabilities_NC: Floats) -> list[Line]:
    """One-vs-rest ROC curve of each class."""
    found = []
    for c in range(probabilities_NC.shape[1]):
        false, true, _ = roc_curve(labels_N == c, probabilities_NC[:, c])
        found.append(Line(false, true, c))
    return found


def pr_lines(labels_N: Labels, probabilities_NC: Floats) -> list[Line]:
    """One-vs-rest precision over recall of each class, from the highest score on."""
    found = []
    for c in range(probabilities_NC.shape[1]):
        precision, recall, _ = precision_recall_curve(labels_N == c, probabilities_NC[:, c])
        found.append(Line(recall[-2::-1], precision[-2::-1], c))
    return found


def mean_roc(labels_N: Labels, probabilities_NC: Floats, place: int) -> Line:
    """The mean over classes of the one-vs-rest ROC curves."""
    lines = roc_lines(labels_N, probabilities_NC)
    heights = [np.concatenate([[0.0], np.interp(_GRID_POINTS[1:], line.x, line.y)]) for line in lines]
    return Line(_GRID_POINTS, np.mean(heights, axis=0), place)


def mean_pr(labels_N: Labels, probabilities_NC: Floats, place: int) -> Line:
    """The mean over classes of the one-vs-rest precision at each recall."""
    heights = [
        _at(_GRID_POINTS, np.asarray(line.x), np.asarray(line.y))
        for line in pr_lines(labels_N, probabilities_NC)
    ]
    return Line(_GRID_POINTS, np.mean(heights, axis=0), place)


def _at(recall_G: Floats, recall: Floats, precision: Floats) -> Floats:
    """Precision at the first point that reaches each recall."""
    places: NDArray[np.int64] = np.minimum(np.searchsorted(recall, recall_G - 1e-9), len(recall) - 1)
    return precision[places]
