"""Divides the cells of a suite among calls, such as the jobs of a Slurm array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SuiteCell:
    """One row on one labelled set."""

    set_name: str
    row: str

    @property
    def title(self) -> str:
        """The cell in one phrase, for the terminal."""
        return f"{self.set_name}, {self.row}"


def list_suite_cells(sets: Iterable[str], rows: Sequence[str]) -> list[SuiteCell]:
    """All cells, set by set."""
    return [SuiteCell(set_name, row) for set_name in sets for row in rows]


def share_of_cells(cells: Sequence[SuiteCell], share: str) -> list[SuiteCell]:
    """The cells of one share, in their order. `share`: `2/8` is the second of eight shares.

    The cells are dealt out one by one, so the cells of a large set go to different shares. The shares depend
    only on the names of sets and rows: two calls on machines that see different sets never have a cell both.
    """
    part, count = map(int, share.split("/"))
    return list(cells[part - 1 :: count])
