"""A disk that is full, read-only or failing is named: which, how much is free, what was asked. On real ones."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from retfound_dist.errors import StorageError
from retfound_dist.io import disk_errors, storage
from retfound_dist.io.scratch import Scratch, new_temporary_folder, temporary_base, temporary_disk_errors
from tests.small_disks import disk_at


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB and 39 files."""
    with disk_at(tmp_path / "tiny", "size=64k,nr_inodes=40") as folder:
        yield folder


def read_only(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def test_a_full_disk_is_named_with_what_is_free_and_what_was_asked(tiny_disk: Path) -> None:
    with pytest.raises(StorageError) as caught:
        storage.write_bytes(f"{tiny_disk}/a/big", bytes(100_000))
    message = str(caught.value)
    assert message.startswith(f"cannot write {tiny_disk}/a/big: No space left on device")
    assert f"the disk at {tiny_disk} is full (" in message
    assert "of 65.5 kB are free, 100 kB needed)" in message
    assert list((tiny_disk / "a").iterdir()) == []


def test_a_copy_names_the_disk_it_goes_to_and_not_the_store_it_comes_from(tiny_disk: Path) -> None:
    storage.write_bytes("memory://disks/big", bytes(100_000))
    with pytest.raises(
        StorageError, match=rf"cannot write {tiny_disk}/big: .* the disk at {tiny_disk} is full"
    ):
        storage.get_file("memory://disks/big", f"{tiny_disk}/big")
    assert list(tiny_disk.iterdir()) == []
    source = tiny_disk.parent / "source"
    source.write_bytes(bytes(100_000))
    with pytest.raises(
        StorageError, match=rf"cannot write {tiny_disk}/put: .*{tiny_disk} is full .*100 kB needed"
    ):
        storage.put_file(str(source), f"{tiny_disk}/put")


def test_no_room_for_more_files_and_a_read_only_disk_are_other_words(tiny_disk: Path) -> None:
    for number in range(39):
        (tiny_disk / str(number)).touch()
    with pytest.raises(StorageError, match=rf"the disk at {tiny_disk} cannot hold more files"):
        storage.write_bytes(f"{tiny_disk}/more", b"")
    read_only(tiny_disk)
    with pytest.raises(
        StorageError, match=rf"cannot write {tiny_disk}/x: the disk at {tiny_disk} is read-only"
    ):
        storage.write_bytes(f"{tiny_disk}/x", b"")


def test_a_full_tmpdir_is_refused_and_not_replaced_by_another_folder(
    tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tiny_disk))
    monkeypatch.setattr(tempfile, "tempdir", None)
    Scratch("disks", "owner").close()
    filled = subprocess.run(
        ["dd", "if=/dev/zero", f"of={tiny_disk}/filler"], capture_output=True, check=False
    )
    assert b"No space left" in filled.stderr
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(StorageError, match=rf"TMPDIR={tiny_disk} cannot be used: .*{tiny_disk} is full"):
        Scratch("disks", "owner")
    (tiny_disk / "filler").unlink()
    read_only(tiny_disk)
    with pytest.raises(StorageError, match=rf"TMPDIR={tiny_disk} cannot be used: .*is read-only"):
        Scratch("disks", "owner")


def test_python_s_own_choice_of_another_folder_does_not_hide_a_full_tmpdir(
    tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tiny_disk))
    subprocess.run(["dd", "if=/dev/zero", f"of={tiny_disk}/filler"], capture_output=True, check=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert tempfile.gettempdir() != str(tiny_disk)  # whoever imports torch has asked already
    with pytest.raises(StorageError, match=rf"TMPDIR={tiny_disk} cannot be used: .*{tiny_disk} is full"):
        temporary_base()
    (tiny_disk / "filler").unlink()
    assert temporary_base() == str(tiny_disk)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(bytes(100_000)),
        lambda path: torch.save(torch.zeros(25_000), path),
        lambda path: safetensors.torch.save_file({"x": torch.zeros(25_000)}, path),
        lambda path: shutil.copyfile(torch.__file__, path),
        lambda path: storage.write_bytes(str(path), bytes(100_000)),
    ],
    ids=["Python", "torch", "safetensors", "a copy", "ours"],
)
def test_whoever_finds_no_room_for_temporary_files_their_disk_is_named(
    write: Callable[[Path], object], tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tiny_disk))
    with pytest.raises(StorageError, match=rf"the disk at {tiny_disk} is full \(.*; set TMPDIR to"):
        with new_temporary_folder() as folder:
            write(Path(folder) / "file")
    assert list(tiny_disk.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/elsewhere"), OSError(errno.EMFILE, "Too many open files"),
        FileNotFoundError(errno.ENOENT, "No such file"), ValueError("os error 28"), RuntimeError("shapes differ"),
    ],
)  # fmt: skip
def test_what_is_not_the_trouble_of_that_disk_stays_what_it_is(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, temporary_disk_errors(str(tmp_path)):
        raise error
    assert caught.value is error


def test_a_disk_that_fails_while_it_is_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken").symlink_to("/proc/self/mem")  # EIO by a real read
    with pytest.raises(StorageError, match=r"the disk at /proc fails .*check it, or use another"):
        storage.read_bytes(str(tmp_path / "broken"))


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EIO, "the disk at .* fails"), (errno.EDQUOT, "your quota on the disk at"),
        (errno.EMFILE, r"too many files are open in this process \(at most \d+"), (errno.ENOMEM, "memory ran out"),
        (errno.EXDEV, "Invalid cross-device link"),
    ],
)  # fmt: skip
def test_each_trouble_has_its_words(number: int, message: str, tmp_path: Path) -> None:
    text = disk_errors.explain(OSError(number, os.strerror(number)), str(tmp_path / "not" / "there"))
    assert re.search(message, text)
