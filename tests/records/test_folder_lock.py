"""One folder, one writer. (A run's own lock: tests/train/health/test_run_lock.py.)"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from retfound_dist.errors import RetfoundError, RunConflictError
from retfound_dist.io import storage
from retfound_dist.records import folder_lock
from retfound_dist.records.folder_lock import LOCK, FolderLock, Holder, is_same_id, this_holder

TAKE = """
import os, sys
from retfound_dist.errors import RunConflictError
from retfound_dist.records import folder_lock
folder_lock.HEARTBEAT_S, folder_lock.STALE_AFTER_S, folder_lock.RACE_PAUSE_S = 0.2, 20.0, 0.1
lock = folder_lock.FolderLock(sys.argv[1], lambda line: None, lambda holder: RunConflictError("taken"), {})
sys.stdin.readline()
try:
    lock.acquire()
    print("holds", flush=True)
except RunConflictError:
    print("refused", flush=True)
sys.stdin.readline()
lock.release()
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "HEARTBEAT_S", 0.2)
    monkeypatch.setattr(folder_lock, "STALE_AFTER_S", 1.5)
    monkeypatch.setattr(folder_lock, "RACE_PAUSE_S", 0.1)


def conflict(holder: Holder | None) -> RetfoundError:
    return RunConflictError(holder.description if holder else "nobody")


def new_lock(url: object, lines: list[str] | None = None, env: dict[str, str] | None = None) -> FolderLock:
    return FolderLock(str(url), [].append if lines is None else lines.append, conflict, env or {})


def holder_of(url: object) -> Holder:
    return Holder(**storage.read_json(storage.join(str(url), LOCK)))


def elsewhere(**values: object) -> Holder:
    """A holder on another host."""
    return replace(this_holder({}), host="node7", place="node7", **values)  # type: ignore[arg-type]


def test_of_several_that_begin_at_once_one_holds_the_folder(tmp_path: Path) -> None:
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", TAKE, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for _ in range(4)
    ]
    for start in starts:
        assert start.stdin
        start.stdin.write("go\n")
    answers = {start.pid: start.stdout.readline().strip() for start in starts if start.stdout}
    assert sorted(answers.values()) == ["holds", "refused", "refused", "refused"]
    assert answers[holder_of(tmp_path).pid] == "holds"
    for start in starts:
        start.communicate("end\n")
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("existed", [True, False])
def test_a_folder_that_the_lock_made_goes_with_it_and_no_other(tmp_path: Path, existed: bool) -> None:
    folder = tmp_path / "run"
    if existed:
        folder.mkdir()
    lock = new_lock(folder)
    lock.acquire()
    lock.release()
    assert folder.exists() == existed


def test_a_lock_of_another_is_not_given_back(tmp_path: Path) -> None:
    lock = new_lock(tmp_path)
    lock.acquire()
    storage.write_json(str(tmp_path / LOCK), asdict(elsewhere(pid=4711)))
    with pytest.raises(RunConflictError, match="process 4711 on node7"):
        lock.check_still_held()
    lock.release()
    assert holder_of(tmp_path).pid == 4711


def test_a_store_without_exclusive_writes_is_settled_by_who_is_named_after_a_moment() -> None:
    url = f"memory://{uuid.uuid4().hex}"
    lock = new_lock(url)
    lock.acquire()
    assert holder_of(url).pid == os.getpid()
    lock.release()
    assert not storage.exists(storage.join(url, LOCK))


@pytest.mark.parametrize(
    ("mine", "earlier", "waits"),
    [
        ({"SLURM_JOB_ID": "17"}, {"SLURM_JOB_ID": "17"}, False),
        ({"SLURM_JOB_ID": "17"}, {"SLURM_JOB_ID": "18"}, True),
        ({"SLURM_JOB_ID": "17", "SLURM_CLUSTER_NAME": "a"}, {"SLURM_JOB_ID": "17"}, True),
        ({"TORCHELASTIC_RUN_ID": "abc"}, {"TORCHELASTIC_RUN_ID": "abc"}, False),
        ({"TORCHELASTIC_RUN_ID": "none"}, {"TORCHELASTIC_RUN_ID": "none"}, True),
        ({}, {}, True),
    ],
)
def test_only_a_later_start_of_the_same_job_follows_without_waiting(
    tmp_path: Path, mine: dict[str, str], earlier: dict[str, str], waits: bool
) -> None:
    storage.write_json(str(tmp_path / LOCK), asdict(elsewhere(job=this_holder(earlier).job)))
    lines: list[str] = []
    lock = new_lock(tmp_path, lines, mine)
    lock.acquire()
    lock.release()
    assert bool(lines) == waits


def test_one_flipped_letter_leaves_an_id_the_same_and_two_do_not() -> None:
    holder_id = uuid.uuid4().hex
    flipped = "x" + holder_id[1:]
    assert is_same_id(holder_id, flipped)
    assert not is_same_id(holder_id, "xx" + holder_id[2:])
    assert not is_same_id(holder_id, holder_id[:-1])


def test_a_damaged_lock_of_one_s_own_goes_with_it(tmp_path: Path) -> None:
    lock = new_lock(tmp_path / "run")
    lock.acquire()
    lock._ended.set()  # no heartbeat, which would repair it
    lock._thread.join()
    (tmp_path / "run" / LOCK).write_bytes(b'{"id": \xff')
    lock.release()
    assert not (tmp_path / "run" / LOCK).exists()


@pytest.mark.parametrize("stored", ["damaged", "whole"])
def test_a_byte_that_changes_while_an_old_lock_is_read_does_not_make_its_holder_alive(
    stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = tmp_path / "run"
    url.mkdir()
    text = b'{"id": \xff' if stored == "damaged" else json.dumps(asdict(elsewhere(beat=7))).encode()
    (url / LOCK).write_bytes(text)
    read, count = storage.read_bytes, 0

    def flip_every_third(where: str, *arguments: object) -> bytes:
        nonlocal count
        count += 1
        data = read(where, *arguments)  # type: ignore[arg-type]
        return data[:-2] + b"x" + data[-1:] if count % 3 == 1 else data

    monkeypatch.setattr(storage, "read_bytes", flip_every_third)
    lines: list[str] = []
    lock = new_lock(url, lines)
    lock.acquire()
    assert count > 4
    assert len(lines) == 1
    assert "waiting up to" in lines[0]
    lock.release()
    assert not (url / LOCK).exists()


def test_a_damaged_lock_that_is_repaired_meanwhile_belongs_to_a_living_process(tmp_path: Path) -> None:
    url = tmp_path / "run"
    url.mkdir()
    (url / LOCK).write_bytes(b'{"id": \xff')
    repair = threading.Timer(0.5, lambda: storage.write_json(str(url / LOCK), asdict(elsewhere(beat=8))))
    repair.start()
    with pytest.raises(RunConflictError, match="on node7"):
        new_lock(url).acquire()
    repair.join()
