"""Plots as inline SVG: matplotlib draws, the page's CSS colours.

Every colour is a placeholder that becomes a CSS variable, so one drawing serves light and dark pages;
text stays text. The place-th colour is `--c1` ... `--c8`.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

COLOURS = 8
INK, MUTED, GRID = "#0000b1", "#0000b2", "#0000b3"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"}
_VARIABLES |= {f"#0000a{i}": f"--c{i}" for i in range(1, COLOURS + 1)}
_STYLE: Any = {
    "svg.fonttype": "none",
    # matplotlib 3.11 draws random ids otherwise, and a page made again would differ.
    "svg.hashsalt": "retfound",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "lines.linewidth": 1.6,
}
SIZE = (4.5, 3.1)


def colour(index: int) -> str:
    """The placeholder of a colour, by its place in the palette."""
    return f"#0000a{index % COLOURS + 1}"


def new_figure(height: float = SIZE[1], width: float = SIZE[0]) -> tuple[Figure, Axes]:
    """A figure with one pair of axes. Height and width in inches."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        return figure, figure.add_subplot()


def new_stack(ratios: Sequence[float], height: float, width: float = SIZE[0]) -> tuple[Figure, list[Axes]]:
    """A figure with stacked axes that share x. `ratios`: their relative heights; sizes in inches."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        return figure, list(figure.subplots(len(ratios), 1, sharex=True, height_ratios=list(ratios)))


def to_svg(figure: Figure) -> str:
    """The figure as SVG with CSS variables for colours, and with ids that are unique in a page."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            # Without dates and versions the same figure gives the same bytes.
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r' id="[a-z_.]+_\d+"', "", text)
    text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    # matplotlib writes six decimals; two are finer than any screen, and the page is smaller.
    text = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\d\.\d\d)\d\d+", r"\1", tag[0]), text)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    # Several drawings stand in one page, where equal ids would refer to the first of them.
    text = re.sub(r'(id="|href="#|url\(#)([\w-]+)', rf"\1\2-{digest}", text)
    for placeholder, variable in _VARIABLES.items():
        text = text.replace(placeholder, f"var({variable})")
    return text.strip()
