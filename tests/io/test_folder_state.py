"""Sizes and times of a run's files, asked of the store without reading the files."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from retfound_dist.errors import StorageError
from retfound_dist.io import storage
from retfound_dist.io.folder_state import file_states

FILES = frozenset({"config.json", "metrics.jsonl"})
INNER = {"checkpoints": "COMMIT.json"}
SIZES = {"config.json": 3, "checkpoints/step_1/COMMIT.json": 5, "checkpoints/step_2/COMMIT.json": 7}
OTHERS = ("notes.txt", "checkpoints/step_1/model.bin", "checkpoints/step_3/model.bin", "other/x/COMMIT.json")


@pytest.fixture(params=["disk", "memory", "s3"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A run's folder with wanted files and others, at each kind of store."""
    root = {"disk": lambda: str(tmp_path), "memory": lambda: f"memory://{uuid.uuid4().hex}"}
    if request.param == "s3":
        root["s3"] = lambda: f"s3://{request.getfixturevalue('bucket')}"
    url = storage.join(root[request.param](), "run")
    for name, count in SIZES.items():
        storage.write_bytes(storage.join(url, name), b"x" * count)
    for name in OTHERS:
        storage.write_bytes(storage.join(url, name), b"other")
    return url


def test_the_wanted_files_that_are_there_are_given_with_their_sizes(run: str) -> None:
    marks = file_states(run, FILES, INNER)
    assert {path: mark.bytes for path, mark in marks.items()} == SIZES


def test_a_file_that_was_written_again_has_another_mark_and_the_others_keep_theirs(run: str) -> None:
    before = file_states(run, FILES, INNER)
    storage.write_bytes(storage.join(run, "config.json"), b"new")
    after = file_states(run, FILES, INNER)
    assert after.pop("config.json") != before.pop("config.json")
    assert after == before


def test_a_file_in_the_place_of_a_folder_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step_1").write_bytes(b"")
    (tmp_path / "config.json").mkdir()
    assert file_states(str(tmp_path), FILES, INNER) == {}


def test_a_folder_that_cannot_be_listed_is_one_line_with_its_url(tmp_path: Path) -> None:
    missing = os.path.join(tmp_path, "none")
    with pytest.raises(StorageError, match=r"cannot list .*none: there is nothing there"):
        file_states(missing, FILES, INNER)
