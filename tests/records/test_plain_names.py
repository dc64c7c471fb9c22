"""Names read from a file stay in their folder."""

from __future__ import annotations

from typing import Any

import pytest

from retfound_dist.errors import CheckpointError, DataError
from retfound_dist.records.plain_names import MAX_NAME_BYTES, checked_name, checked_path, name_fault
from tests.hostile_names import HOSTILE


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_leads_elsewhere_is_refused_in_one_line(name: Any) -> None:
    assert name_fault(name)
    with pytest.raises(DataError, match=r"^m.json names .* do not use it") as caught:
        checked_name(name, "m.json")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name",
    [
        "a.tar",
        "oct.2-000001.tar",
        "model.safetensors",
        "..a",
        "a..b",
        "augé.png",
        "x" * MAX_NAME_BYTES,
        "~",
        "a b",
    ],
)
def test_an_ordinary_name_is_itself(name: str) -> None:
    assert checked_name(name, "m.json") == name


@pytest.mark.parametrize("path", ["state/mp_rank_00.pt", "model.safetensors", "a/b/c"])
def test_a_path_below_its_folder_is_itself(path: str) -> None:
    assert checked_path(path, "COMMIT.json") == path


@pytest.mark.parametrize(
    "path", ["state/../../x", "/state/x", "state//x", "state/", "./x", "a/C:b", "s3://b/x", 5, None]
)
def test_a_path_that_leaves_its_folder_is_refused_with_the_error_asked_for(path: Any) -> None:
    with pytest.raises(CheckpointError, match=r"COMMIT.json names"):
        checked_path(path, "COMMIT.json", CheckpointError)
