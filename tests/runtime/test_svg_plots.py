"""Figures as SVG for a page."""

import re

from retfound_dist.runtime.svg_plots import new_figure, to_svg


def test_numbers_beside_an_axis_keep_all_their_digits() -> None:
    figure, axes = new_figure()
    axes.plot([0, 1], [0.61251, 0.61253])
    axes.set_yticks([0.6125, 0.6126])
    svg = to_svg(figure)
    assert {"0.6125", "0.6126"} <= set(re.findall(r">([\d.]+)</text>", svg))
    assert not re.search(r' d="[^"]*\d\.\d\d\d', svg)


def test_colours_are_left_to_the_page() -> None:
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1])
    assert "var(--" in to_svg(figure)
    assert "#0000" not in to_svg(figure)
