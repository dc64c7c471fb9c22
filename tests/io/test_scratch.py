"""Temporary folders do not pile up when their users are killed."""

import threading
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import pytest

from retfound_dist.io.scratch import Scratch


def _hold_scratch(ready: object, leave: object) -> None:
    scratch = Scratch("test", "owner")
    ready.set()  # type: ignore[attr-defined]
    leave.wait(30)  # type: ignore[attr-defined]
    scratch.close()


def test_a_temporary_folder_stays_until_its_last_process_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    context = get_context("fork")
    ready, leave = context.Event(), context.Event()
    other = context.Process(target=_hold_scratch, args=(ready, leave))
    other.start()
    assert ready.wait(30)
    mine = Scratch("test", "owner")
    mine.close()
    assert Path(mine.folder).is_dir()
    leave.set()
    other.join()
    assert not Path(mine.folder).exists()


def test_what_a_killed_run_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    context = get_context("fork")
    ready = context.Event()
    dying = context.Process(target=_hold_scratch, args=(ready, context.Event()))
    dying.start()
    assert ready.wait(30)
    dying.kill()
    dying.join()
    left = list(tmp_path.glob("retfound-test-*"))
    assert len(left) == 1
    scratch = Scratch("test", "another")
    assert not left[0].exists()
    scratch.close()


def test_a_thread_that_goes_on_writing_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    leave = threading.Event()

    def write(folder: Path) -> None:
        number = 0
        while not leave.is_set():
            with suppress(OSError):
                (folder / f"shard-{number}").touch()
            number += 1

    for _ in range(20):
        scratch = Scratch("test", "owner")
        writer = threading.Thread(target=write, args=(Path(scratch.folder),))
        writer.start()
        scratch.close()
        leave.set()
        writer.join()
        leave.clear()
    Scratch("test", "another").close()
    assert list(tmp_path.iterdir()) == []
