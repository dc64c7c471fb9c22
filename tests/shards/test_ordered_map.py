from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from retfound_dist.errors import RetfoundError
from shards.ordered_map import ordered_map


def square(number: int) -> int:
    time.sleep(0.002 * (number % 3))
    return number * number


def die(number: int) -> int:
    os._exit(3)


@pytest.mark.parametrize("workers", [1, 3])
def test_results_keep_the_order_of_the_items(workers: int) -> None:
    assert list(ordered_map(square, range(50), workers, chunk=4)) == [n * n for n in range(50)]


def test_it_does_not_run_far_ahead_of_its_reader() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield number

    results = ordered_map(square, items(), 2, chunk=4)
    assert next(results) == 0
    results.close()
    assert taken <= 4 * (2 * 2 + 1)


def test_a_worker_that_dies_is_one_line_that_says_what_to_do() -> None:
    with pytest.raises(RetfoundError, match=r"worker processes died .*run the same command again"):
        list(ordered_map(die, range(9), 2))
