"""Temporary folders do not pile up when their users are killed."""

from multiprocessing import get_context
from pathlib import Path

import pytest

from retfound_dist.scratch import Scratch


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
