"""The critical-difference picture joins the rows that it should."""

from __future__ import annotations

from retfound_dist.evaluate.suite.critical_difference import critical_difference_svg, joined_groups


def test_groups_are_the_largest_runs_within_the_critical_difference() -> None:
    # Demsar (2006), figure 1: two groups of rows overlap.
    assert joined_groups([1.964, 2.000, 2.893, 3.143], 1.25) == [(0, 3)]
    assert joined_groups([1.964, 2.000, 2.893, 3.143], 1.15) == [(0, 2), (1, 3)]
    assert joined_groups([1.0, 1.5, 3.0, 3.2], 1.0) == [(0, 1), (2, 3)]
    assert joined_groups([1.0, 2.0, 3.0], 0.5) == []
    assert joined_groups([2.0, 2.0], 0.1) == [(0, 1)]
    # A difference that equals the critical difference is a clear one.
    assert joined_groups([1.0, 2.0], 1.0) == []


def test_the_picture_names_every_row_with_its_rank_and_the_critical_difference() -> None:
    svg = critical_difference_svg({"none": 3.0, "ours": 1.25, "mae_large": 1.75}, 1.1)
    for text in ("none", "ours", "mae_large", "1.25", "1.75", "3.00", "critical difference 1.10"):
        assert text in svg
    assert svg.index("ours") < svg.index("mae_large")
    bars = svg.count("stroke-width: 3.5")
    assert bars == 1
    # The same ranks give the same bytes, so that a page made again does not differ.
    assert svg == critical_difference_svg({"none": 3.0, "ours": 1.25, "mae_large": 1.75}, 1.1)
