"""What a killed job's processes shared is removed by the next start; what a living one shares is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from retfound_dist.errors import StorageError
from retfound_dist.runtime import worker_leftovers

OWNER = """
import os, sys, time
from multiprocessing import get_context, util
from retfound_dist.runtime import worker_leftovers
worker_leftovers.name_after_owner()
worker_leftovers.name_after_owner()  # once is enough
context = get_context("spawn")
lock, queue = context.Lock(), context.Queue()
print(lock._semlock.name.lstrip("/"), util.get_temp_dir(), flush=True)
if sys.argv[1:]:
    sys.stdin.read()
    sys.exit()
time.sleep(60)
"""
NEXT = "from retfound_dist.runtime import worker_leftovers; worker_leftovers.name_after_owner()"


def start(tmp_path: Path, *more: str) -> tuple[subprocess.Popen[str], Path, Path]:
    """A process that shares a semaphore and a folder, in a process group of its own; gives both."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert owner.stdout is not None
    name, folder = owner.stdout.readline().split()
    return owner, worker_leftovers.SHM / f"sem.{name}", Path(folder)


def end(owner: subprocess.Popen[str]) -> None:
    """Let a process end that was started with `end`."""
    assert owner.stdin is not None
    owner.stdin.close()
    assert owner.wait(30) == 0


def next_start(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", NEXT], check=True, env={**os.environ, "TMPDIR": str(tmp_path)})


@pytest.mark.parametrize("letters", [10, 150])  # a socket's path may have 107
def test_what_a_killed_job_left_goes_at_the_next_start_and_what_a_living_one_uses_stays(
    letters: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path = tmp_path_factory.mktemp("t" * letters)
    dead, old, old_folder = start(tmp_path)
    alive, used, used_folder = start(tmp_path)
    strange = worker_leftovers.SHM / f"sem.mp-strange{os.getpid()}"
    strange.write_bytes(b"")
    try:
        os.killpg(dead.pid, signal.SIGKILL)  # with its resource tracker, as a container that ends
        dead.wait()
        assert old.exists()
        assert old_folder.is_dir()
        next_start(tmp_path)
        assert not old.exists()
        assert not old_folder.exists()
        assert not list(worker_leftovers.SHM.glob(f"{old.name.removeprefix('sem.').rsplit('-', 1)[0]}*"))
        assert used.exists()
        assert used_folder.is_dir()
        assert strange.exists()
    finally:
        strange.unlink()
        os.killpg(alive.pid, signal.SIGKILL)
        alive.wait()
        next_start(tmp_path)
    assert not used.exists()


def test_a_process_that_ends_leaves_nothing(tmp_path: Path) -> None:
    owner, semaphore, folder = start(tmp_path, "end")
    end(owner)
    assert not semaphore.exists()
    assert not folder.exists()
    assert not list(worker_leftovers.SHM.glob(f"{semaphore.name.removeprefix('sem.').rsplit('-', 1)[0]}*"))


def test_a_process_that_ends_removes_what_was_killed_while_it_ran(tmp_path: Path) -> None:
    """A worker of a killed process may hold its lock for some seconds after the next start."""
    killed, left, _ = start(tmp_path)
    following, _, _ = start(tmp_path, "end")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert left.exists()
    end(following)
    assert not left.exists()
    assert not list(worker_leftovers.SHM.glob(f"{left.name.removeprefix('sem.').rsplit('-', 1)[0]}*"))


def test_a_long_tmpdir_and_nowhere_else_to_go_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("t" * 120)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr(worker_leftovers, "_SHORT_FOLDERS", ("/proc/nowhere",))
    with pytest.raises(
        StorageError, match=r"at most 89 bytes. .* set TMPDIR to a folder with a shorter path"
    ):
        worker_leftovers._name_sockets({})
    assert list(long.iterdir()) == []


def test_a_lock_of_another_user_is_not_touched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(worker_leftovers, "SHM", tmp_path)
    base = f"mp-retfound-{os.getuid()}-"
    for name in (f"{base}dead.owner", f"sem.{base}dead-1", "sem.mp-other"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    assert worker_leftovers.remove_dead_owners(base) == 0
    monkeypatch.undo()
    monkeypatch.setattr(worker_leftovers, "SHM", tmp_path)
    assert worker_leftovers.remove_dead_owners(base) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["sem.mp-other"]
