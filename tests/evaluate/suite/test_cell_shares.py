"""Shares of cells: each cell is in exactly one."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from retfound_dist.evaluate.suite.cell_shares import SuiteCell, list_suite_cells, share_of_cells


@given(sets=st.integers(1, 9), rows=st.integers(1, 9), shares=st.integers(1, 20))
def test_the_shares_of_an_array_have_each_cell_exactly_once(sets: int, rows: int, shares: int) -> None:
    cells = list_suite_cells([f"s{i}" for i in range(sets)], [f"r{i}" for i in range(rows)])
    parts = [share_of_cells(cells, f"{part}/{shares}") for part in range(1, shares + 1)]
    assert Counter(cell for part in parts for cell in part) == Counter(cells)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_one_share_is_everything_and_cells_go_set_by_set() -> None:
    cells = list_suite_cells(["a", "b"], ["x", "y"])
    assert share_of_cells(cells, "1/1") == cells
    assert [cell.title for cell in cells] == ["a, x", "a, y", "b, x", "b, y"]
    assert share_of_cells(cells, "2/3") == [SuiteCell("a", "y")]
