"""A rank that cannot measure is a result, and does not leave the others waiting."""

from __future__ import annotations

import json
import math

import pytest
import torch

from retfound_dist.doctor.check_result import (
    CheckResult,
    Measured,
    first_fault,
    measure_on_ranks,
    values_of,
)
from retfound_dist.errors import StorageError
from retfound_dist.runtime.world import World
from retfound_dist.train.ranks.collectives import RankGroup

ALONE = RankGroup(World(), torch.device("cpu"))


@pytest.mark.parametrize(
    "error", [StorageError("no\nroom"), OSError("no room"), RuntimeError("no room"), MemoryError()]
)
def test_an_error_of_a_measurement_becomes_one_line(error: Exception) -> None:
    def fail() -> float:
        raise error

    (measured,) = measure_on_ranks(ALONE, fail)
    assert measured.value is None
    assert measured.fault == ("MemoryError" if isinstance(error, MemoryError) else "no room")


def test_a_bug_is_not_taken_for_a_fault_of_the_machine() -> None:
    def fail() -> float:
        raise TypeError("a bug")

    with pytest.raises(TypeError):
        measure_on_ranks(ALONE, fail)


def test_the_first_rank_with_a_fault_is_named_and_the_others_are_counted() -> None:
    measured = [Measured(1.0), Measured(None, "no room"), Measured(None, "too slow")]
    result = first_fault("store", measured, "make room")
    assert result == CheckResult(
        "store", "failed", "rank 1: no room (and 1 more ranks)", what_to_do="make room"
    )
    assert first_fault("store", measured[:1], "make room") is None
    assert values_of(measured) == [1.0]


def test_json_has_no_infinite_numbers() -> None:
    tree = CheckResult("open_files", "ok", "no limit", math.inf, "files").to_json()
    assert json.loads(json.dumps(tree, allow_nan=False))["value"] is None
    assert set(tree) == {"name", "status", "text", "value", "unit", "what_to_do"}
