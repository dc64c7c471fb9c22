"""A file is written where none stands, and one of many writers is told so. (S3: tests/cluster, test_pack_s3.)"""

from __future__ import annotations

import errno
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retfound_dist.errors import StorageError
from retfound_dist.io import storage
from retfound_dist.records.exclusive_write import WriteResult, write_new


def test_the_first_writes_and_the_second_changes_nothing(tmp_path: Path) -> None:
    where = str(tmp_path / "new" / "LOCK.json")
    assert write_new(where, b"one") is WriteResult.NEW
    assert write_new(where, b"two") is WriteResult.EXISTS
    assert [path.read_bytes() for path in (tmp_path / "new").iterdir()] == [b"one"]


def test_of_many_at_once_one_alone_is_told_that_it_wrote(tmp_path: Path) -> None:
    for turn in range(20):
        where = str(tmp_path / str(turn))
        with ThreadPoolExecutor(16) as pool:
            results = list(pool.map(lambda number, to=where: write_new(to, b"%d" % number), range(16)))
        assert results.count(WriteResult.NEW) == 1
        assert results.count(WriteResult.EXISTS) == 15
        assert Path(where).read_bytes() == b"%d" % results.index(WriteResult.NEW)


def test_a_disk_without_links_promises_nothing_and_writes_over_nothing_it_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: str) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    where = str(tmp_path / "LOCK.json")
    assert write_new(where, b"one") is WriteResult.UNCERTAIN
    assert write_new(where, b"two") is WriteResult.EXISTS
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"one"]


def test_a_store_that_cannot_tell_promises_nothing() -> None:
    where = f"memory://{uuid.uuid4().hex}/LOCK.json"
    assert write_new(where, b"one") is WriteResult.UNCERTAIN
    assert write_new(where, b"two") is WriteResult.EXISTS
    storage.delete(where)


def test_a_file_in_the_way_of_the_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write"):
        write_new(str(tmp_path / "file" / "LOCK.json"), b"one")
