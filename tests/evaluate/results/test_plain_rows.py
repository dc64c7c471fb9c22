"""Rows in the usual form are split as the csv module and `float` split them; all others are left to these."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from retfound_dist.evaluate.results.plain_rows import split_rows


def test_rows_are_split_as_by_the_csv_module_and_numbers_are_those_of_float() -> None:
    draw = np.random.default_rng(0)
    numbers = [*draw.random((400, 2)).tolist(), [0.0, 1.0], [0.29, 0.99999999], [9.99999999, 0.00000001]]
    rows = [
        f"scän/{n} b.png,,Drüsen {n % 3},{first:.8f},{last:.8f}\n" for n, (first, last) in enumerate(numbers)
    ]
    split = split_rows("".join(rows).encode(), 5, 2)
    assert split is not None
    expected = list(zip(*csv.reader(io.StringIO("".join(rows))), strict=True))
    assert [tuple(column) for column in split[0]] == expected[:3]
    assert split[1].T.tolist() == [[*map(float, column)] for column in expected[3:]]


@pytest.mark.parametrize(
    "row",
    [
        '"a",b,0.12345678\n',
        "a,b,0.12345678",
        "a,b,0.12345678\r\n",
        "a,0.12345678\n",
        "a,b,c,0.12345678\n",
        "a,b,0.1234567\n",
        "a,b,0.123456789\n",
        "a,b,1.2345e-08\n",
        "a,b,-.12345678\n",
        "a,b,nan\n",
        "a,b,0,12345678\n",
        "a,b;0.12345678\n",
        "a,b,0.1234567:\n",
        "a,b,0.1234567/\n",
        "\n",
        "x\n",
        "",
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_rows_of_another_form_are_not_split(row: str, place: int) -> None:
    rows = ["k,b,0.12345678\n"]
    assert split_rows("".join(rows).encode(), 3, 1) is not None
    rows.insert(place, row)
    if row != "" and not (row == "a,b,0.12345678" and place == 0):
        assert split_rows("".join(rows).encode(), 3, 1) is None
    assert split_rows(row.encode(), 3, 1) is None


def test_cells_that_move_between_rows_are_noticed() -> None:
    """A row with a cell too many and one with a cell too few have the right number of commas together."""
    assert split_rows(b"a,b,c,0.12345678\nb,0.12345678\n", 3, 1) is None
    with pytest.raises(UnicodeDecodeError):
        split_rows(b"\xff,b,0.12345678\n", 3, 1)
