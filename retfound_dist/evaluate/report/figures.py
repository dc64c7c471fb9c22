"""The plots of a page as inline SVG, in the style of `retfound_dist/runtime/svg_plots.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from retfound_dist.evaluate.scores.calibration import Bin
from retfound_dist.evaluate.scores.metrics import Floats, Labels
from retfound_dist.runtime.svg_plots import COLOURS as COLOURS
from retfound_dist.runtime.svg_plots import MUTED, colour, new_figure, new_stack, to_svg

FIRST_DASHED_COLOUR = 4
"""Without full colour vision, colours from this index on look like an earlier one. Their lines are dashed."""
MARKERS = "os^DPX*v"
"""Marker of each class, so that classes differ in shape as well as in colour."""
_BAND_OPACITY = 0.16


@dataclass(frozen=True)
class Line:
    """One curve. `colour` is an index from 0; the less important line of a colour is dashed or thin."""

    x: Sequence[float] | Floats
    y: Sequence[float] | Floats
    colour: int = 0
    dashed: bool = False
    thin: bool = False
    band: tuple[Floats, Floats] | None = None
    """Lower and upper end of its interval at each x."""


def class_line(x: Sequence[float] | Floats, y: Sequence[float] | Floats, colour_index: int) -> Line:
    """A line in the colour with this index, dashed where the colour alone is not distinct."""
    return Line(x, y, colour_index, dashed=colour_index % COLOURS >= FIRST_DASHED_COLOUR)


@dataclass(frozen=True)
class PointMarker:
    """A highlighted point with a label."""

    x: float
    y: float
    text: str
    colour: int = 0


def line_chart(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    marks: Sequence[PointMarker] = (),
    unit_square: bool = False,
    diagonal: bool = False,
    integer_x: bool = False,
    log_x: bool = False,
) -> str:
    """A line chart as SVG. `unit_square` sets both axes to 0-1. `log_x` marks and labels each point."""
    figure, axes = new_figure()
    if diagonal:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (2, 3)))
    for line in lines:
        if line.band is not None:
            axes.fill_between(line.x, *line.band, color=colour(line.colour), alpha=_BAND_OPACITY, linewidth=0)
        axes.plot(
            line.x,
            line.y,
            color=colour(line.colour),
            linewidth=0.8 if line.thin else 1.6,
            linestyle=(0, (4, 2)) if line.dashed else "-",
            alpha=0.55 if line.thin else 1.0,
            solid_joinstyle="round",
            # A line through one point has no length and would not be seen.
            marker="o" if len(line.x) == 1 or log_x else "",
            markersize=4,
        )
    for mark in marks:
        axes.plot([mark.x], [mark.y], "o", color=colour(mark.colour), markersize=6)
        axes.annotate(
            mark.text, (mark.x, mark.y), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8
        )
    if unit_square:
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    if integer_x:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if log_x:
        ticks = sorted({float(x) for line in lines for x in line.x})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        # On a short logarithmic axis matplotlib also labels minor ticks, between the ticks set here.
        axes.minorticks_off()
    axes.margins(y=0.12)
    axes.set(xlabel=x_label, ylabel=y_label)
    return to_svg(figure)


def interval_chart(
    names: Sequence[str],
    values: Sequence[float | None],
    spans: Sequence[Sequence[float] | None],
    label: str,
    chance: float | None = None,
) -> str:
    """A dot with its interval for each row, the first on top. A dotted line shows the result of guessing.

    All rows have the same colour where there are more rows than colours.
    """
    figure, axes = new_figure(height=0.9 + 0.42 * len(names))
    # One colour, because a repeated colour would suggest that two rows are related.
    colours = range(len(names)) if len(names) <= COLOURS else [0] * len(names)
    for row, (value, span) in enumerate(zip(values, spans, strict=True)):
        y = len(names) - 1 - row
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
            axes.plot(span, [y, y], color=colour(colours[row]), linewidth=2.2, solid_capstyle="round")
        axes.plot([value], [y], "o", color=colour(colours[row]), markersize=7)
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
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.08)
    return to_svg(figure)


def reliability_chart(bins: Sequence[Bin], bin_count: int) -> str:
    """Accuracy over confidence with intervals, and below it the number of images in each bin.

    `bin_count`: number of equal bins from 0 to 1.
    """
    figure, (upper, lower) = new_stack((3, 1), height=3.6)
    upper.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (2, 3)))
    for each_bin in bins:
        upper.plot([each_bin.confidence] * 2, each_bin.interval, color=colour(0), linewidth=1.6, alpha=0.5)
    confidence, accuracy = (
        [each_bin.confidence for each_bin in bins],
        [each_bin.accuracy for each_bin in bins],
    )
    upper.plot(confidence, accuracy, "o-", color=colour(0), markersize=5)
    upper.set(ylim=(-0.03, 1.03), ylabel="share correct")
    lower.bar(
        [(each_bin.index + 0.5) / bin_count for each_bin in bins],
        [each_bin.images for each_bin in bins],
        width=0.86 / bin_count,
        color=colour(0),
    )
    for each_bin in bins:
        lower.annotate(
            str(each_bin.images), ((each_bin.index + 0.5) / bin_count, each_bin.images), xytext=(0, 2),
            textcoords="offset points", ha="center", fontsize=7,
        )  # fmt: skip
    lower.set(xlim=(-0.02, 1.02), xlabel="confidence: probability of the predicted class", ylabel="images")
    lower.margins(y=0.3)
    lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    return to_svg(figure)


def scatter_chart(points_N2: Floats, labels_N: Labels, x_label: str, y_label: str) -> str:
    """Points in the colour and shape of their class, with rare classes on top."""
    figure, axes = new_figure()
    counts = np.bincount(labels_N)
    # Common classes first, so that their many points do not hide those of a rare class.
    for label in sorted(np.unique(labels_N), key=lambda c: -counts[c]):
        of_class = points_N2[labels_N == label]
        axes.scatter(
            of_class[:, 0], of_class[:, 1], s=22, marker=MARKERS[label % COLOURS], color=colour(int(label)),
            alpha=0.75, linewidths=0,
        )  # fmt: skip
    axes.set(xlabel=x_label, ylabel=y_label)
    return to_svg(figure)
