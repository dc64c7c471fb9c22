"""The critical-difference picture: mean ranks on a line, and bars that join rows without a clear difference.

Source: Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7 (2006), figure 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup
from matplotlib.axes import Axes

from retfound_dist.runtime.svg_plots import INK, MUTED, colour, new_figure, to_svg

_INCHES_A_LINE = 0.27
"""Height of a line of text: the unit of the picture's vertical axis."""
_BAR_STEP = 0.32
"""Distance between two bars, in lines."""
_AXIS = 0.0
"""Height of the line of ranks: all above it is positive, the bars and names below it negative."""
_LINES_ABOVE = 2.6
"""Lines above the line of ranks: its numbers, and the critical difference."""
_SCALE_INCHES = 2.2
"""Width of the line of ranks."""
_INCHES_A_LETTER = 0.085
"""Width of a letter of a name, with room for wide letters."""
_STUB = 0.06
"""Distance of a name from the scale, as a share of the scale."""


def joined_groups(mean_ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """The largest groups of neighbours whose mean ranks differ by less than the critical difference.

    `mean_ranks` is in rising order. Each group is (first, last) place; a row alone is no group.
    """
    groups: list[tuple[int, int]] = []
    for first, lowest in enumerate(mean_ranks):
        last = max(
            place for place, rank in enumerate(mean_ranks) if place == first or rank - lowest < difference
        )
        # A group inside the group before it adds nothing.
        if last > first and (not groups or last > groups[-1][1]):
            groups.append((first, last))
    return groups


def critical_difference_svg(mean_rank: Mapping[str, float], difference: float) -> str:
    """The picture as SVG. `mean_rank`: row -> mean rank, at least two rows; 1 is the best.

    From top to bottom: the critical difference as a length, the line of ranks, a bar for each group of rows
    without a clear difference, the names. The horizontal unit is a rank, the vertical one a line of text.
    """
    ordered = sorted(mean_rank.items(), key=lambda item: item[1])
    groups = joined_groups([rank for _, rank in ordered], difference)
    rows = len(ordered)
    named_left = (rows + 1) // 2
    bars_depth = _BAR_STEP * (len(groups) + 1)
    depth = bars_depth + named_left
    # Names stand beside the scale, and a page cuts off what is wider than the picture.
    name_inches = _INCHES_A_LETTER * (max(map(len, mean_rank)) + len(" 1.00  "))
    figure, axes = new_figure(_INCHES_A_LINE * (depth + _LINES_ABOVE), _SCALE_INCHES + 2 * name_inches)
    margin = (rows - 1) * name_inches / _SCALE_INCHES
    # Cut off where it is longer than the picture: it then joins all rows anyway.
    _draw_scale(axes, rows, min(1 + difference, rows + margin), f"critical difference {difference:.2f}")
    for place, (first, last) in enumerate(groups):
        y = -_BAR_STEP * (place + 1)
        low, high = ordered[first][1], ordered[last][1]
        axes.plot([low - 0.02 * rows, high + 0.02 * rows], [y, y], color=colour(1), linewidth=3.5)
    for place, (name, rank) in enumerate(ordered):
        # The better half is named at the left, the worse half at the right, the outermost row highest.
        on_left = place < named_left
        line = place if on_left else rows - 1 - place
        _draw_row(axes, name, rank, -bars_depth - line - 0.4, on_left, rows)
    axes.set(xlim=(1 - margin, rows + margin), ylim=(-depth, _LINES_ABOVE))
    axes.set_axis_off()
    return str(Markup(to_svg(figure)))


def _draw_scale(axes: Axes, rows: int, end: float, label: str) -> None:
    """The ranks, and above them the critical difference from 1 to `end`."""
    axes.plot([1, rows], [_AXIS, _AXIS], color=INK, linewidth=1)
    for rank in range(1, rows + 1):
        axes.plot([rank, rank], [_AXIS, 0.25], color=INK, linewidth=1)
        axes.text(rank, 0.4, str(rank), ha="center", va="bottom", fontsize=9.5)
    axes.plot([1, end], [1.7, 1.7], color=MUTED, linewidth=1.4)
    for x in (1, end):
        axes.plot([x, x], [1.55, 1.85], color=MUTED, linewidth=1.4)
    axes.text((1 + end) / 2, 1.85, label, ha="center", va="bottom", fontsize=9.5)


def _draw_row(axes: Axes, name: str, rank: float, y: float, on_left: bool, rows: int) -> None:
    """Draw one method: a dot at its mean rank, and a line at the height `y` to its name beside the axis."""
    edge = 1 - _STUB * (rows - 1) if on_left else rows + _STUB * (rows - 1)
    axes.plot([rank, rank, edge], [_AXIS, y, y], color=MUTED, linewidth=0.9)
    axes.plot([rank], [_AXIS], "o", color=colour(0), markersize=4)
    label = f"{name}  {rank:.2f}" if on_left else f"{rank:.2f}  {name}"
    axes.text(
        edge,
        y,
        f"{label} " if on_left else f" {label}",
        ha="right" if on_left else "left",
        va="center",
        fontsize=9.5,
    )
