"""The report's plots: lines told apart by every eye, and axes that show what they must."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import combinations

import numpy as np

from retfound_dist.evaluate.report.figures import Line, class_line, interval_chart, line_chart, scatter_chart
from retfound_dist.runtime.svg_plots import COLOURS

SEEN = (
    np.eye(3),
    np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
)
"""Linear RGB as normal, deuteranope and protanope eyes see it (Machado, Oliveira and Fernandes 2009)."""


def linear(colour: str) -> np.ndarray:
    """Linear RGB of RRGGBB."""
    c = np.array([int(colour[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* under D65; a distance of 2 can just be seen."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ rgb.clip(0, 1) / [0.9505, 1, 1.089] + 1e-9)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_no_two_lines_are_told_apart_by_hue_alone() -> None:
    """Lines of one dash are told apart by eyes without red or green cones, on light and on dark pages."""
    css = (files("retfound_dist.evaluate.report") / "report.css").read_text()
    themes = [re.findall(r"--c\d: #(\w{6})", part) for part in css.split("@media")[:2]]
    assert [len(colours) for colours in themes] == [COLOURS, COLOURS]
    for colours in themes:
        for seen in SEEN:
            places = [lab(seen @ linear(colour)) for colour in colours]
            for a, b in combinations(range(COLOURS), 2):
                if class_line([0], [0], a).dashed == class_line([0], [0], b).dashed:
                    assert np.linalg.norm(places[a] - places[b]) > 10, (a, b)


def test_an_undefined_score_says_so_in_place_of_its_dot() -> None:
    svg = interval_chart(["a", "b"], [0.75, None], [(0.7, 0.8), None], "AUROC", chance=0.5)
    assert ">0.750<" in svg
    assert svg.count(">undefined<") == 1
    assert svg.index(">a<") != svg.index(">b<")


def test_a_logarithmic_axis_names_each_point_and_no_other() -> None:
    svg = line_chart([Line([10, 50, 100], [0.1, 0.2, 0.3])], "share", "score", log_x=True)
    for label in ("10", "50", "100"):
        assert f">{label}<" in svg
    assert ">20<" not in svg


def test_rare_classes_are_drawn_over_common_ones() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    svg = scatter_chart(np.arange(12.0).reshape(6, 2), labels, "x", "y")
    order = [svg.index(f"var(--c{colour + 1})") for colour in (0, 2, 1)]
    assert order == sorted(order)
