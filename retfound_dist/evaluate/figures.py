"""The report's plots as inline SVG: matplotlib draws, the page's CSS colours.

Every colour is a placeholder that becomes a CSS variable, so one drawing serves light and dark pages;
text stays text. Line `i` has the colour `--c1` ... `--c8`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from retfound_dist.evaluate.metrics import Floats, Labels

COLOURS = 8
_INK, _MUTED, _GRID = "#0000b1", "#0000b2", "#0000b3"
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _GRID: "--grid"}
_VARIABLES |= {f"#0000a{i}": f"--c{i}" for i in range(1, COLOURS + 1)}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "retfound",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
}
_SIZE = (4.5, 3.1)
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
    figure, axes = _figure()
    if diagonal:
        axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=0.9, linestyle=(0, (2, 3)))
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
    return _svg(figure)


def whiskers(
    names: Sequence[str],
    values: Sequence[float | None],
    spans: Sequence[Sequence[float] | None],
    label: str,
    chance: float | None = None,
) -> str:
    """A dot with its interval for each row, the first on top; a dotted line where guessing lands."""
    figure, axes = _figure(height=0.9 + 0.42 * len(names))
    for place, (value, span) in enumerate(zip(values, spans, strict=True)):
        y = len(names) - 1 - place
        if value is None:
            axes.text(
                0.5,
                y,
                "undefined",
                ha="center",
                va="center",
                color=_MUTED,
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
        axes.axvline(chance, color=_MUTED, linewidth=0.9, linestyle=(0, (2, 3)))
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_ylim(-0.6, len(names) - 0.3)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(label)
    axes.margins(x=0.08)
    return _svg(figure)


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


def colour(place: int) -> str:
    """The placeholder of the place-th colour."""
    return f"#0000a{place % COLOURS + 1}"


def _at(recall_G: Floats, recall: Floats, precision: Floats) -> Floats:
    """Precision at the first point that reaches each recall."""
    places: NDArray[np.int64] = np.minimum(np.searchsorted(recall, recall_G - 1e-9), len(recall) - 1)
    return precision[places]


def _figure(height: float = _SIZE[1]) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_SIZE[0], height), layout="constrained")
        FigureCanvasSVG(figure)
        return figure, figure.add_subplot()


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r' id="[a-z_.]+_\d+"', "", text)
    text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    for placeholder, variable in _VARIABLES.items():
        text = text.replace(placeholder, f"var({variable})")
    return text.strip()
