"""The report's plots as inline SVG, drawn as `retfound_dist/runtime/svg_plots.py` says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from retfound_dist.evaluate.scores.calibration import Bin
from retfound_dist.evaluate.scores.metrics import Floats, Labels
from retfound_dist.runtime.svg_plots import COLOURS as COLOURS
from retfound_dist.runtime.svg_plots import MUTED, colour, new_figure, new_stack, to_svg

SOLID = 4
"""Colours from this place on look like an earlier one without full colour vision: their lines are dashed."""
MARKERS = "os^DPX*v"
"""Of the place-th class, so that classes are told apart by shape too."""
_SEEN_THROUGH = 0.16


@dataclass(frozen=True)
class Line:
    """One curve; `colour` counts from 0, a dashed or thin line is the lesser one of its colour."""

    x: Sequence[float] | Floats
    y: Sequence[float] | Floats
    colour: int = 0
    dashed: bool = False
    thin: bool = False
    band: tuple[Floats, Floats] | None = None
    """Lower and upper end of its interval at each x."""


def classed(x: Sequence[float] | Floats, y: Sequence[float] | Floats, place: int) -> Line:
    """A line in the place-th colour, dashed where colour alone would not tell it from another."""
    return Line(x, y, place, dashed=place % COLOURS >= SOLID)


@dataclass(frozen=True)
class PointMarker:
    """A point to notice, with a word beside it."""

    x: float
    y: float
    text: str
    colour: int = 0


def curves(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    marks: Sequence[PointMarker] = (),
    unit_square: bool = False,
    diagonal: bool = False,
    whole_x: bool = False,
    log_x: bool = False,
) -> str:
    """A line chart as SVG; `unit_square` fixes both axes to 0-1; `log_x` marks and names each point."""
    figure, axes = new_figure()
    if diagonal:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (2, 3)))
    for line in lines:
        if line.band is not None:
            axes.fill_between(line.x, *line.band, color=colour(line.colour), alpha=_SEEN_THROUGH, linewidth=0)
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
    if whole_x:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if log_x:
        places = sorted({float(x) for line in lines for x in line.x})
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{x:g}" for x in places])
        # On a short logarithmic axis matplotlib labels minor ticks too, between the places that are set
        # here.
        axes.minorticks_off()
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
    """A dot with its interval for each row, the first on top; a dotted line where guessing lands.

    More rows than there are colours have one.
    """
    figure, axes = new_figure(height=0.9 + 0.42 * len(names))
    # With more rows than colours, a repeated colour would look as if two rows belonged together.
    places = range(len(names)) if len(names) <= COLOURS else [0] * len(names)
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
            axes.plot(span, [y, y], color=colour(places[place]), linewidth=2.2, solid_capstyle="round")
        axes.plot([value], [y], "o", color=colour(places[place]), markersize=7)
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


def reliability(bins: Sequence[Bin], places: int, place: int = 0) -> str:
    """Share right over confidence with intervals, and below it how many images each bin holds.

    `places` is the number of equal bins from 0 to 1.
    """
    figure, (upper, lower) = new_stack((3, 1), height=3.6)
    upper.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (2, 3)))
    for each_bin in bins:
        upper.plot([each_bin.confidence] * 2, each_bin.span, color=colour(place), linewidth=1.6, alpha=0.5)
    confidence, right = [each_bin.confidence for each_bin in bins], [each_bin.right for each_bin in bins]
    upper.plot(confidence, right, "o-", color=colour(place), markersize=5)
    upper.set(ylim=(-0.03, 1.03), ylabel="share right")
    lower.bar(
        [(each_bin.place + 0.5) / places for each_bin in bins],
        [each_bin.images for each_bin in bins],
        width=0.86 / places,
        color=colour(place),
    )
    for each_bin in bins:
        lower.annotate(
            str(each_bin.images), ((each_bin.place + 0.5) / places, each_bin.images), xytext=(0, 2),
            textcoords="offset points", ha="center", fontsize=7,
        )  # fmt: skip
    lower.set(xlim=(-0.02, 1.02), xlabel="confidence: probability of the predicted class", ylabel="images")
    lower.margins(y=0.3)
    lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    return to_svg(figure)


def scatter(points_N2: Floats, labels_N: Labels, x_label: str, y_label: str) -> str:
    """Points in the colour and shape of their class, the rare classes on top."""
    figure, axes = new_figure()
    counts = np.bincount(labels_N)
    # Common classes first, so that their many points do not hide those of a rare class.
    for place in sorted(np.unique(labels_N), key=lambda c: -counts[c]):
        of_class = points_N2[labels_N == place]
        axes.scatter(
            of_class[:, 0], of_class[:, 1], s=22, marker=MARKERS[place % COLOURS], color=colour(int(place)),
            alpha=0.75, linewidths=0,
        )  # fmt: skip
    axes.set(xlabel=x_label, ylabel=y_label)
    return to_svg(figure)
