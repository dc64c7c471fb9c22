"""What must hold of a run after a storm of kills; each check gives a line for every promise broken."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.storm_lives import Life
from retfound_dist.errors import RetfoundError
from retfound_dist.formats import checkpoint_folder

LEFT_OVER = 3
"""Scratch folders that may be left: those of the last processes, never one for each kill."""


def wrong_batches(rows: Sequence[dict[str, Any]], expected: Sequence[str]) -> Iterator[str]:
    """Steps that are missing, or whose batch is another than the plan's, each time they were done."""
    missing = sorted(set(range(1, len(expected) + 1)) - {row["step"] for row in rows})
    if missing:
        yield f"steps {missing[:10]} are not in metrics.jsonl"
    for row in rows:
        if row["batch_digest"] != expected[row["step"] - 1]:
            yield f"step {row['step']} saw batch {row['batch_digest']}, not {expected[row['step'] - 1]}"


def bad_checkpoints(run: str, last: int) -> Iterator[str]:
    """Committed checkpoints with a file that is missing or differs in size or sha256."""
    steps = checkpoint_folder.list_steps(run)
    if steps[-1:] != [last]:
        yield f"the newest committed checkpoint is {steps[-1:]}, not {last}"
    yield from filter(None, (damage(run, step) for step in steps))


def damage(run: str, step: int) -> str:
    """What is wrong with a committed checkpoint; empty for one whose files are as its commit says."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            held = checkpoint_folder.read_commit(checkpoint_folder.checkpoint_url(run, step))
            for name in held.files:
                checkpoint_folder.fetch(held, name, os.path.join(folder, "file"))
        except RetfoundError as error:
            return str(error)
    return ""


def wrong_starts(lives: Sequence[Life]) -> Iterator[str]:
    """Processes that went on from anything but the newest committed checkpoint."""
    for number, life in enumerate(lives, 1):
        if life.committed is not None and int(life.resumed() or 0) != life.committed:
            yield f"process {number} went on at step {life.resumed() or 0}, committed was {life.committed}"
        yield from (f"process {number}: {line}" for _, line in life.said if "skipping" in line)


def left_behind(lives: Sequence[Life], memory: Path) -> Iterator[str]:
    """Processes that outlived their trainer, and shared memory in what they had in place of /dev/shm."""
    sessions = {life.process.pid for life in lives}
    end = time.monotonic() + 10
    while (alive := of_sessions(sessions)) and time.monotonic() < end:
        time.sleep(0.2)
    yield from (f"process {pid} outlived its trainer: {what}" for pid, what in alive.items())
    if lost := sorted(path.name for path in memory.iterdir()):
        yield f"shared memory is left behind: {', '.join(lost[:5])}"


def left_on_disk(scratch: Path) -> Iterator[str]:
    """More scratch folders than the last processes can have left."""
    left = sorted(path.name for path in scratch.glob("retfound-*"))
    if len(left) > LEFT_OVER:
        yield f"{len(left)} scratch folders are left in TMPDIR: {', '.join(left[:5])}"


def of_sessions(sessions: set[int]) -> dict[int, str]:
    """Processes that descend from a trainer, which led a session: pid to command."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            pid = int(path.name)
            if os.getsid(pid) in sessions and " Z " not in (path / "stat").read_text():
                found[pid] = (path / "cmdline").read_text().replace("\0", " ")
    return found
