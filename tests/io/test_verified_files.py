"""Files are read again before they are judged, and compared after they are written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from retfound_dist.errors import StorageError
from retfound_dist.io import storage, verified_files

GOOD, BAD = storage.bytes_info(b"good"), storage.bytes_info(b"bad!")


@pytest.fixture(params=["disk", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "there/file") if request.param == "disk" else "memory://verified/file"


def test_a_file_that_is_as_expected_differs_in_nothing(url: str, tmp_path: Path) -> None:
    storage.write_bytes(url, b"good")
    assert verified_files.read_info(url) == GOOD
    assert verified_files.difference_from(url, GOOD) == ""
    assert verified_files.fetch(url, str(tmp_path / "copies/copy"), GOOD) == ""
    assert (tmp_path / "copies/copy").read_bytes() == b"good"
    assert verified_files.read(url) == b"good"


def test_each_way_to_differ_is_named(url: str) -> None:
    storage.write_bytes(url, b"bad!")
    assert verified_files.difference_from(url, GOOD).startswith(f"its sha256 is {BAD.sha256[:12]}")
    storage.write_bytes(url, b"bad")
    assert verified_files.difference_from(url, GOOD) == "it has 3 bytes, not 4"
    storage.delete(url)
    assert verified_files.difference_from(url, GOOD) == "it does not exist"


@pytest.mark.parametrize("wrong", [1, 2])
def test_readings_that_go_wrong_for_a_while_judge_nothing(
    wrong: int, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes(url, b"good")
    left, read = [wrong], verified_files.read_info
    monkeypatch.setattr(verified_files, "read_info", lambda where: BAD if left.pop() else read(where))
    left[:] = [0] * 3 + [1] * wrong
    assert verified_files.difference_from(url, GOOD) == ""


def test_a_small_file_is_what_two_readings_agree_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = [b"good", b"bad!", b"good", b"good", b"never"]
    monkeypatch.setattr(storage, "read_bytes", lambda where: readings.pop(0))
    assert verified_files.read(url) == b"good"
    assert readings == [b"never"]
    readings[:] = [str(n).encode() for n in range(100)]
    with pytest.raises(StorageError, match="it gave different bytes in 12 readings"):
        verified_files.read(url)


def test_what_arrives_damaged_is_no_success(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").write_bytes(b"good")
    assert verified_files.upload_verified(str(tmp_path / "source"), url) == GOOD
    verified_files.write(url, b"good")
    write = storage.write_bytes
    monkeypatch.setattr(storage, "put_file", lambda source, where: write(where, b"bad!"))
    monkeypatch.setattr(storage, "write_bytes", lambda where, data: write(where, b"bad!"))
    with pytest.raises(StorageError, match="arrived damaged: its sha256 is"):
        verified_files.upload_verified(str(tmp_path / "source"), url)
    with pytest.raises(StorageError, match="arrived damaged"):
        verified_files.write(url, b"good")


def test_a_full_disk_of_this_machine_is_named_and_is_no_fault_of_the_file(small_disk: Path, url: str) -> None:
    storage.write_bytes(url, b"good" * 100_000)
    expected = storage.bytes_info(b"good" * 100_000)
    (small_disk / "filler").write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 100_000))
    with pytest.raises(StorageError, match=rf"the disk at {small_disk} is full .*TMPDIR"):
        verified_files.fetch(url, str(small_disk / "copy"), expected)
    assert sorted(os.listdir(small_disk)) == ["filler"]


def test_what_is_missing_is_told_from_what_cannot_be_read(tmp_path: Path) -> None:
    readings = []
    for name in ("nothing", "file/below", "folder", "broken"):
        (tmp_path / "file").write_bytes(b"x")
        (tmp_path / "folder").mkdir(exist_ok=True)
        if name == "broken":
            os.symlink("/proc/self/mem", tmp_path / name)  # EIO by a real read
        with pytest.raises(StorageError) as error:
            storage.read_bytes(str(tmp_path / name))
        readings.append(verified_files.is_missing(error.value))
    assert readings == [True, True, True, False]
