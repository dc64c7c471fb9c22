"""A run that cannot go on by itself ends itself."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from retfound_dist.errors import CheckpointError, ConfigError, ManifestError, SaveError, StorageError
from retfound_dist.train.ranks.watchdog import (
    HUNG,
    ORPHANED,
    RESTART_FILE_VARIABLE,
    record_restart,
    would_fail_again,
)

HANG = (
    "import time; from retfound_dist.train.ranks.watchdog import Watchdog; from retfound_dist.runtime.world import World\n"
    "dog = Watchdog(World(3, 4, 3), 0.03); dog.start(); time.sleep(4); dog.step_done(0)\n"
    "for step in range(1, 4): time.sleep(1); dog.step_done(step)\n"
    "with dog.paused(3): time.sleep(4)\n"
    "time.sleep(4); dog.step_done(3)\n"
    "print('so far so good', flush=True)\n"
    "def stuck_here(): time.sleep(60)\n"
    "stuck_here()"
)
LOCKED = (
    "import ctypes; from retfound_dist.train.ranks import watchdog\n"
    "from retfound_dist.runtime.world import World\n"
    "watchdog.C_THREAD_DELAY_S = 1; dog = watchdog.Watchdog(World(), 0.02); dog.start(); dog.step_done(7)\n"
    "def stuck_here(): ctypes.PyDLL(None).sleep(60)\n"
    "stuck_here()"
)
PARENT = (
    "import subprocess, sys\n"
    "child = 'from retfound_dist.train.ranks.watchdog import Watchdog; import os, time;' \\\n"
    "        'from retfound_dist.runtime.world import read_world;' \\\n"
    "        'Watchdog(read_world(os.environ), 0).start(); print(1, flush=True); time.sleep(60)'\n"
    "process = subprocess.Popen([sys.executable, '-c', child], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)\n"
    "process.stdout.readline(); print(process.pid, flush=True); process.wait()"
)


def run(code: str, **environment: str) -> "subprocess.Popen[str]":
    env = {k: v for k, v in os.environ.items() if k != "TORCHELASTIC_RUN_ID"} | environment
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def test_a_step_that_takes_for_ever_shows_its_stacks_and_leaves() -> None:
    out, said = (process := run(HANG)).communicate(timeout=60)
    assert process.returncode == HUNG
    assert out == "so far so good\n"
    assert "stuck_here" in said
    assert "rank 3: no step for" in said.splitlines()[-1]
    assert "after step 3" in said.splitlines()[-1]


def test_foreign_code_that_hangs_with_pythons_lock_shows_its_stacks_and_leaves() -> None:
    begun = time.monotonic()
    _, said = (process := run(LOCKED)).communicate(timeout=60)
    assert process.returncode == 1
    assert "stuck_here" in said
    assert time.monotonic() - begun < 50


def test_a_rank_leaves_when_its_torchrun_is_gone() -> None:
    parent = run(PARENT, TORCHELASTIC_RUN_ID="some")
    assert parent.stdout
    rank = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not rank.is_running() or rank.status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.1)
    else:
        rank.kill()
        raise AssertionError(f"the rank is still there, it should have left with {ORPHANED}")


def test_a_rank_without_torchrun_stays_when_its_shell_goes() -> None:
    parent = run(PARENT)
    assert parent.stdout
    rank = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    time.sleep(3)
    assert rank.is_running()
    assert rank.status() != psutil.STATUS_ZOMBIE
    rank.kill()


def test_an_error_of_a_store_takes_no_wish_for_another_start_back_and_a_queued_job_asks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish = tmp_path / "start_again"
    monkeypatch.setenv(RESTART_FILE_VARIABLE, str(wish))
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    refused = ManifestError("the set cannot be read")
    refused.__cause__ = StorageError("503")
    for error, lasting in (
        (StorageError("503"), False), (SaveError("no room"), False), (refused, False),
        (ConfigError("a typo"), True), (CheckpointError("none can be used"), True), (ManifestError("cut"), True),
    ):  # fmt: skip
        wish.touch()
        assert would_fail_again(error) == lasting
        record_restart(would_fail_again(error))
        assert wish.exists() != lasting
    wish.unlink(missing_ok=True)
    record_restart(lasting=False)
    assert not wish.exists()  # nothing was done yet
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    record_restart(lasting=False)
    assert wish.exists()
    record_restart(lasting=True)
    assert not wish.exists()
