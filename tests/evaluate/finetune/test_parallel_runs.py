from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from retfound_dist.errors import DataError
from retfound_dist.evaluate.finetune.parallel_runs import run_in_parallel
from retfound_dist.runtime.progress import ProgressDisplay
from tests import ROOT


class Recorder(ProgressDisplay):
    """A display that keeps what it is asked to show."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []
        self.notes: list[tuple[int, str]] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, done: int, total: int, note: str = "") -> None:
        self.notes.append((total, note))


def work(number: int, show: ProgressDisplay) -> tuple[int, int, int]:
    """Squares a number in its own process, and says so."""
    show.begin(f"squaring {number}")
    show.advance(number, 10)
    show.say(f"{number} is squared")
    return number**2, torch.get_num_threads(), os.getpid()


def fail(show: ProgressDisplay) -> tuple[int, int, int]:
    raise DataError("this piece cannot be done")


def touch(path: str, show: ProgressDisplay) -> tuple[int, int, int]:
    with open(path, "w") as file:
        file.write("done")
    return 0, 0, 0


def test_every_piece_runs_in_another_process_and_its_words_reach_this_display() -> None:
    show = Recorder()
    results = run_in_parallel({f"job {n}": partial(work, n) for n in (3, 1, 2)}, 2, 6, show)
    assert {name: result[0] for name, result in results.items()} == {"job 3": 9, "job 1": 1, "job 2": 4}
    assert list(results) == ["job 3", "job 1", "job 2"]
    assert {result[1] for result in results.values()} == {3}, "six threads shared by two processes"
    processes = {result[2] for result in results.values()}
    assert os.getpid() not in processes
    assert len(processes) <= 2
    assert sorted(show.lines) == [f"job {n}: {n} is squared" for n in (1, 2, 3)]
    assert sorted(show.notes) == [(3, f"(job {n}: squaring {n}, {n}/10)") for n in (1, 2, 3)]


def test_a_piece_that_fails_raises_its_own_error_after_the_others_end(tmp_path: object) -> None:
    path = f"{tmp_path}/other"
    with pytest.raises(DataError, match="this piece cannot be done"):
        run_in_parallel({"bad": fail, "good": partial(touch, path)}, 1, 1, Recorder())
    assert os.path.exists(path)
    assert multiprocessing.active_children() == []


def note_process_and_linger(note: str, show: ProgressDisplay) -> None:
    """Write this process's number, and stay."""
    Path(note).write_text(str(os.getpid()))
    time.sleep(600)


def run_lingering_task(note: str) -> None:
    """A command whose only task never ends by itself."""
    run_in_parallel({"a": partial(note_process_and_linger, note)}, 1, 1, ProgressDisplay(quiet=True))


def test_a_worker_of_a_killed_command_ends_within_its_task(tmp_path: Path) -> None:
    note = tmp_path / "worker"
    code = f"from {__name__} import run_lingering_task; run_lingering_task({str(note)!r})"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as command:
        while not (note.exists() and note.read_text()):
            assert command.poll() is None
            time.sleep(0.05)
        command.kill()
    worker = Path(f"/proc/{note.read_text()}")
    while worker.exists() and "Z" not in (worker / "stat").read_text().split(")")[1]:
        time.sleep(0.05)
