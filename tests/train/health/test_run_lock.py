"""One run, one writer."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from retfound_dist.errors import FormatError, RunConflictError
from retfound_dist.io import storage
from retfound_dist.records import folder_lock
from retfound_dist.records.folder_lock import this_holder
from retfound_dist.train.health.run_lock import RunLock

TAKE = (
    "import sys, time; from retfound_dist.records import folder_lock\n"
    "from retfound_dist.train.health.run_lock import RunLock; folder_lock.HEARTBEAT_S = 0.2\n"
    "held = RunLock(sys.argv[1], print); held.acquire(); print('taken', flush=True); time.sleep(60)"
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "HEARTBEAT_S", 0.2)
    monkeypatch.setattr(folder_lock, "STALE_AFTER_S", 2.5)
    monkeypatch.setattr(folder_lock, "RACE_PAUSE_S", 0.1)
    for name in ("SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has the lock of `tmp_path`."""
    process = subprocess.Popen([sys.executable, "-c", TAKE, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "taken\n"
    yield process
    process.kill()
    process.wait()


def held(url: object) -> folder_lock.Holder:
    return folder_lock.Holder(**storage.read_json(storage.join(str(url), folder_lock.LOCK)))


def test_a_lock_is_taken_counted_up_and_given_back(tmp_path: Path) -> None:
    mine = RunLock(str(tmp_path), print)
    mine.acquire()
    time.sleep(0.7)
    assert held(tmp_path).pid == os.getpid()
    assert held(tmp_path).beat >= 2
    assert not mine.lost_reason()
    mine.release()
    assert not (tmp_path / folder_lock.LOCK).exists()


def test_the_second_refuses_while_the_first_lives(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    with pytest.raises(RunConflictError, match=rf"process {holder.pid} on .*run\.url"):
        RunLock(str(tmp_path), print).acquire()
    assert held(tmp_path).pid == holder.pid


def test_a_process_that_is_gone_is_followed_at_once(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    holder.kill()
    holder.wait()
    begun, messages = time.monotonic(), list[str]()
    RunLock(str(tmp_path), messages.append).acquire()
    assert time.monotonic() - begun < folder_lock.STALE_AFTER_S
    assert not messages


def test_of_another_host_silence_is_awaited(tmp_path: Path) -> None:
    there = replace(this_holder({}), host="node7", place="node7", pid=1)
    storage.write_json(storage.join(str(tmp_path), folder_lock.LOCK), asdict(there))
    messages: list[str] = []
    RunLock(str(tmp_path), messages.append).acquire()
    assert "process 1 on node7" in messages[0]
    assert held(tmp_path).pid == os.getpid()


def test_an_earlier_start_of_the_same_job_is_followed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = replace(this_holder({"SLURM_JOB_ID": "17"}), host="node7", place="node7")
    storage.write_json(storage.join(str(tmp_path), folder_lock.LOCK), asdict(there))
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    messages: list[str] = []
    RunLock(str(tmp_path), messages.append).acquire()
    assert not messages


def test_who_was_taken_over_while_it_slept_notices(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    os.kill(holder.pid, signal.SIGSTOP)
    mine = RunLock(str(tmp_path), print)
    mine.acquire()
    assert not mine.lost_reason()
    other = replace(this_holder({}), pid=4711)
    storage.write_json(storage.join(str(tmp_path), folder_lock.LOCK), asdict(other))
    time.sleep(0.7)
    assert "process 4711" in mine.lost_reason()
    mine.release()
    assert held(tmp_path).pid == 4711


DAMAGED = [b"", b"[]", b'{"id": "a", "host"', b"[" * 9999]


@pytest.mark.parametrize("data", DAMAGED)
def test_a_damaged_lock_is_taken_over_after_silence_and_says_how_to_do_so_at_once(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "STALE_AFTER_S", 0.9)
    where = tmp_path / folder_lock.LOCK
    where.write_bytes(data)
    messages: list[str] = []
    mine = RunLock(str(tmp_path), messages.append)
    mine.acquire()
    assert "a process whose LOCK.json is damaged: waiting up to" in messages[0]
    assert f"delete {where})" in messages[0]
    assert held(tmp_path).pid == os.getpid()
    mine.release()


def test_a_damaged_lock_whose_holder_lives_is_not_taken_over(
    tmp_path: Path, holder: "subprocess.Popen[str]"
) -> None:
    (tmp_path / folder_lock.LOCK).write_bytes(b'{"id": ')
    with pytest.raises(RunConflictError, match=r"is being run by"):
        RunLock(str(tmp_path), print).acquire()
    assert held(tmp_path).pid == holder.pid


def test_a_lock_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / folder_lock.LOCK).write_text('{"format": 2, "owner": "a later version"}')
    with pytest.raises(FormatError, match=r"LOCK\.json has format 2"):
        RunLock(str(tmp_path), print).acquire()
    assert "a later version" in (tmp_path / folder_lock.LOCK).read_text()


def test_a_key_of_a_later_version_in_a_lock_is_no_damage(tmp_path: Path) -> None:
    there = {**asdict(replace(this_holder({}), host="node7", place="node7", pid=1)), "queue": "gpu"}
    storage.write_json(storage.join(str(tmp_path), folder_lock.LOCK), there)
    messages: list[str] = []
    RunLock(str(tmp_path), messages.append).acquire()
    assert "process 1 on node7" in messages[0]
