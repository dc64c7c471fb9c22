"""Starts a training process again and again and kills it at random times, until the last one may finish."""

from __future__ import annotations

import random
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from retfound_dist.errors import TrainingError
from retfound_dist.formats import checkpoint_folder
from tests import ROOT

SAVE_EVERY = 3
"""Steps between checkpoints."""
PHASES = ("start", "step", "save")
"""The phase of a process in which a kill should come."""
Print = Callable[[str], None]


@dataclass
class TrainingProcess:
    """One process of the run, from its start to its end."""

    process: subprocess.Popen[str]
    phase: str
    committed: int | None = None
    """The newest committed step when the process resumed; None where it did not get that far."""
    began: float = field(default_factory=time.time)
    ended: float = 0.0
    was_saving: bool = False
    """Whether a checkpoint was being written when it was killed."""
    stderr_lines: list[tuple[float, str]] = field(default_factory=list)
    """Each line on stderr, with its time."""

    def find_line(self, pattern: str) -> tuple[float, str]:
        """Time of the first line that matches, and the pattern's group; (0, "") where none does."""
        for time_s, line in self.stderr_lines:
            if result := re.search(pattern, line):
                return time_s, result[1]
        return 0.0, ""

    def resumed_step(self) -> str:
        """The step at which it resumed, as printed; empty where it did not."""
        return self.find_line(r"resuming at step (\d+)")[1]

    def ready_time(self) -> float:
        """When it began to train; 0 where it did not get that far."""
        return self.find_line(r"(steps of .*; run )")[0]

    def last_lines(self) -> str:
        """The last 20 lines on stderr."""
        return "\n".join(line for _, line in self.stderr_lines[-20:])


class Store:
    """The run's files as rclone stores them on disk, read without the server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def committed(self) -> int:
        """The newest committed step; 0 where there is none."""
        return max(checkpoint_folder.list_steps(str(self.folder)), default=0)

    def commits(self) -> int:
        """Number of committed checkpoints."""
        return len(checkpoint_folder.list_steps(str(self.folder)))

    def saving_since(self, since: float) -> bool:
        """Whether a checkpoint was begun after a time and is not committed."""
        newest = max(self._checkpoints(), key=_changed, default=None)
        return (
            newest is not None
            and _changed(newest) >= since
            and not (newest / checkpoint_folder.COMMIT).exists()
        )

    def save_s(self) -> float:
        """Seconds from the first file of the newest committed checkpoint to its commit."""
        for folder in reversed(self._checkpoints()):
            if (folder / checkpoint_folder.COMMIT).exists():
                files = [path.stat().st_mtime for path in folder.rglob("*") if path.is_file()]
                return max(files) - min(files)
        return 0.5

    def _checkpoints(self) -> list[Path]:
        return sorted((self.folder / "checkpoints").glob("step_*"))


def _changed(folder: Path) -> float:
    """Time of the last write below a folder."""
    with suppress(FileNotFoundError):
        return max((path.stat().st_mtime for path in folder.rglob("*")), default=0.0)
    return 0.0


def kill_and_restart(
    command: Sequence[str],
    env: Mapping[str, str],
    store: Store,
    kills: int,
    draw: random.Random,
    print_line: Print,
) -> Iterator[TrainingProcess]:
    """Start and kill one process after the other; the last runs to its end. Yields each when it has ended."""
    phases = [PHASES[number % len(PHASES)] for number in range(kills)]
    draw.shuffle(phases)
    start_s = 10.0
    for number, phase in enumerate([*phases, "end"], 1):
        training = TrainingProcess(_start(command, env), phase)
        threading.Thread(target=_listen, args=(training, store), daemon=True).start()
        if phase == "end":
            training.process.wait(600)
        else:
            _wait_for(phase, training, store, draw, start_s)
        early = training.process.poll()
        training.process.kill()
        training.ended = time.time()
        training.process.wait()
        training.was_saving = store.saving_since(training.began)
        if ready_time := training.ready_time():
            start_s = ready_time - training.began
        yield training
        if early is not None:
            if (phase, early) != ("end", 0):
                raise TrainingError(
                    f"process {number} exited with {early} before it was killed: {training.last_lines()}"
                )
            return
        where = f"committed is step {store.committed()}{', half of another' if training.was_saving else ''}"
        print_line(f"kill {number} ({phase}) after {training.ended - training.began:.1f} s, {where}")


def _start(command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env=env, cwd=ROOT, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def _listen(training: TrainingProcess, store: Store) -> None:
    assert training.process.stderr is not None
    for line in training.process.stderr:
        training.stderr_lines.append((time.time(), line.rstrip()))
        if training.committed is None and (training.resumed_step() or training.ready_time()):
            training.committed = store.committed()


def _wait_for(
    phase: str, training: TrainingProcess, store: Store, draw: random.Random, start_s: float
) -> None:
    """Return at a random time in a start, in the steps, or in a save; at once where the process has ended."""
    if phase == "start":
        _sleep(training, draw.uniform(0, start_s))
        return
    target_commits = store.commits() + draw.randint(0, 2)

    def in_phase() -> bool:
        if not training.ready_time() or store.commits() < target_commits:
            return False
        return phase == "step" or store.saving_since(training.began)

    while not in_phase():
        if training.process.poll() is not None or time.time() - training.began > 300:
            return
        time.sleep(0.02)
    _sleep(training, draw.uniform(0, store.save_s() if phase == "save" else 1.0))


def _sleep(training: TrainingProcess, seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        training.process.wait(seconds)
