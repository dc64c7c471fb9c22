"""Checks of a run after many kills; each yields a line for every broken promise."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.storm_processes import TrainingProcess
from retfound_dist.errors import RetfoundError
from retfound_dist.formats import checkpoint_folder

LEFT_OVER = 3
"""Scratch folders that may be left: those of the last processes."""


def wrong_batches(rows: Sequence[dict[str, Any]], expected: Sequence[str]) -> Iterator[str]:
    """Steps that are missing, or whose batch was not the planned one."""
    missing = sorted(set(range(1, len(expected) + 1)) - {row["step"] for row in rows})
    if missing:
        yield f"steps {missing[:10]} are not in metrics.jsonl"
    for row in rows:
        if row["batch_digest"] != expected[row["step"] - 1]:
            yield f"step {row['step']} saw batch {row['batch_digest']}, not {expected[row['step'] - 1]}"


def bad_checkpoints(run: str, last: int) -> Iterator[str]:
    """Committed checkpoints with a missing file, or with a file of another size or sha256."""
    steps = checkpoint_folder.list_steps(run)
    if steps[-1:] != [last]:
        yield f"the newest committed checkpoint is {steps[-1:]}, not {last}"
    yield from filter(None, (damage(run, step) for step in steps))


def damage(run: str, step: int) -> str:
    """What is wrong with a committed checkpoint; empty where its files match its commit."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            commit = checkpoint_folder.read_commit(checkpoint_folder.checkpoint_url(run, step))
            for name in commit.files:
                checkpoint_folder.fetch(commit, name, os.path.join(folder, "file"))
        except RetfoundError as error:
            return str(error)
    return ""


def wrong_starts(processes: Sequence[TrainingProcess]) -> Iterator[str]:
    """Processes that did not resume at the newest committed checkpoint."""
    for number, training in enumerate(processes, 1):
        if training.committed is not None and int(training.resumed_step() or 0) != training.committed:
            resumed = training.resumed_step() or 0
            yield f"process {number} went on at step {resumed}, committed was {training.committed}"
        yield from (f"process {number}: {line}" for _, line in training.stderr_lines if "skipping" in line)


def left_behind(processes: Sequence[TrainingProcess], memory: Path) -> Iterator[str]:
    """Processes that outlived their trainer, and files left in their /dev/shm."""
    sessions = {training.process.pid for training in processes}
    end = time.monotonic() + 10
    while (alive := of_sessions(sessions)) and time.monotonic() < end:
        time.sleep(0.2)
    yield from (f"process {pid} outlived its trainer: {command}" for pid, command in alive.items())
    if lost := sorted(path.name for path in memory.iterdir()):
        yield f"shared memory is left behind: {', '.join(lost[:5])}"


def left_on_disk(scratch: Path) -> Iterator[str]:
    """More scratch folders than the last processes can leave."""
    left = sorted(path.name for path in scratch.glob("retfound-*"))
    if len(left) > LEFT_OVER:
        yield f"{len(left)} scratch folders are left in TMPDIR: {', '.join(left[:5])}"


def of_sessions(sessions: set[int]) -> dict[int, str]:
    """Processes in the sessions of trainers: command by process id."""
    result = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            pid = int(path.name)
            if os.getsid(pid) in sessions and " Z " not in (path / "stat").read_text():
                result[pid] = (path / "cmdline").read_text().replace("\0", " ")
    return result
