"""An episode of `benchmarks.chaos`: one fault hits a job, which is started again and compared."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos_disks import Disks
from benchmarks.chaos_faults import DISK, S3, WRITERS, Episode, apply_fault, rules
from benchmarks.chaos_jobs import EVALUATION, JOBS, RUN, SET, Job, Result, differences, readable
from benchmarks.chaos_processes import WatchedProcess, unreported
from retfound_dist.errors import TrainingError
from tests.cluster.real_faults import Chaos, chaos
from tests.cluster.real_parts import clean_environment
from tests.cluster.real_s3 import rclone, with_new_bucket

COUNTS = {"lost": "lost", "wrong": "wrong", "untold": "unreported"}
"""Broken promises by their name in the results, and the field of `Outcome` that lists them."""
POLL_S = 0.01
INPUTS = "inputs"
"""Folder of the files that the jobs read, on disk and in the bucket."""
SHOWN_DIFFERENCES, SHOWN_LINES = 5, 25
"""Most differences that are printed, and lines of a job's stderr where a promise was broken."""
STARTS = 2
"""A job must be complete after so many starts without a fault."""


@dataclass
class Outcome:
    """The result of an episode, with a line for each broken promise."""

    episode: Episode
    ending: str = ""
    """Exit codes of the disturbed job."""
    fault_hit: bool = False
    """Whether the fault came while the job ran."""
    last_lines: list[str] = field(default_factory=list)
    """The last lines of its stderr."""
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unreported: list[str] = field(default_factory=list)
    files_left: int = 0
    """Files and folders left in TMPDIR and in shared memory at the end."""

    @property
    def broken(self) -> list[str]:
        """All broken promises."""
        return [f"{field}: {line}" for field in COUNTS.values() for line in getattr(self, field)]


@dataclass(frozen=True)
class UndisturbedJob:
    """The result of a job without faults."""

    result: Result
    seconds: float
    files: int


@dataclass(frozen=True)
class Place:
    """Where jobs read and write: a URL, and its folder on this machine."""

    url: str
    folder: Path
    inputs: str
    """URL of what the jobs read."""
    env: Mapping[str, str]
    proxy: Chaos | None = None


class Storm:
    """The disk and the store, and the undisturbed jobs on both."""

    def __init__(self, folder: Path, commands: Sequence[str], stack: ExitStack) -> None:
        self._folder, self._stack, self._store = folder, stack, folder / "store"
        self._disks = disks = Disks(folder)
        stack.callback(disks.close)
        env = clean_environment({"TMPDIR": str(disks.folders["tmp"]), "OMP_NUM_THREADS": "1"})
        out = disks.folders["out"]
        self._places = {DISK: Place(str(out), out, str(self._store / INPUTS), env)}
        self._undisturbed_jobs: dict[tuple[str, str], UndisturbedJob] = {}
        self._make_inputs(commands)

    def run_episode(self, episode: Episode) -> Outcome:
        """Run one episode, from the first start to the comparison."""
        outcome, job = Outcome(episode), JOBS[episode.command]
        place, undisturbed = self._place(episode.place), self._undisturbed_job(episode.command, episode.place)
        name = f"episode-{episode.number}"
        folder = place.folder / name
        finished = self._disturbed_start(episode, job, place, undisturbed, outcome)
        outcome.wrong += job.wrong_when_committed(folder, undisturbed.result)[:SHOWN_DIFFERENCES]
        for _ in range(STARTS if not finished else 0):
            before = job.committed_work(folder, undisturbed.result)
            restarted, code = self._undisturbed_start(job, place, name, outcome)
            outcome.lost += job.lost_work(
                before,
                job.committed_work(folder, undisturbed.result),
                f"{restarted.stdout}\n{restarted.stderr}",
            )
            if code == 0:
                break
            outcome.lost.append(f"started again without a fault it left with {code}: {_last(restarted)}")
        outcome.wrong += differences(readable(job.result, folder), undisturbed.result)[:SHOWN_DIFFERENCES]
        left_files = self._disks.left_files()
        outcome.files_left = sum(map(len, left_files.values()))
        self._disks.clear()
        return outcome

    def _disturbed_start(
        self, episode: Episode, job: Job, place: Place, undisturbed: UndisturbedJob, outcome: Outcome
    ) -> bool:
        """Start the job and apply the fault, or start two at once; returns whether one of them succeeded."""
        name = f"episode-{episode.number}"
        before = place.proxy.faults() if place.proxy else 0
        first = self._start(job, place, name, "struck")
        self._wait_for(episode, first, place.folder / name, undisturbed)
        processes, outcome.fault_hit = [first], first.code is None
        if episode.fault == WRITERS:
            processes.append(self._start(job, place, name, "second"))
        elif first.code is None:
            apply_fault(episode, first, place.proxy, self._disks)
        for process in processes:
            outcome.unreported += process.end()
            outcome.unreported += unreported(
                process.code or 0, process.stderr, process.killed, process.was_hit
            )
        if place.proxy:
            place.proxy.set(rules=[], down=False)
            outcome.fault_hit = outcome.fault_hit and not (rules(episode) and place.proxy.faults() == before)
        self._disks.restore_size()
        outcome.last_lines = [
            line for process in processes for line in process.stderr.splitlines()[-SHOWN_LINES:]
        ]
        outcome.ending = ", ".join(f"left with {process.code}" for process in processes)
        if errors := [_last(process) for process in processes if process.code]:
            outcome.ending += f" ({'; '.join(filter(None, errors))})"
        return any(process.code == 0 for process in processes)

    def _undisturbed_start(
        self, job: Job, place: Place, name: str, outcome: Outcome
    ) -> tuple[WatchedProcess, int]:
        """Start the job without a fault and wait for its end."""
        process = self._start(job, place, name, "again")
        outcome.unreported += process.end()
        code = process.code or 0
        outcome.unreported += [f"started again {line}" for line in unreported(code, process.stderr, False)]
        return process, code

    def _start(self, job: Job, place: Place, name: str, log: str) -> WatchedProcess:
        arguments = job.arguments(place.inputs, f"{place.url}/{name}", str(self._disks.folders["cache"]))
        command = [sys.executable, "-m", "retfound_dist", *arguments]
        return WatchedProcess(command, place.env, self._folder / f"{name}-{job.name}-{log}.log")

    def _wait_for(
        self, episode: Episode, process: WatchedProcess, folder: Path, undisturbed: UndisturbedJob
    ) -> None:
        """Return at the time of the fault, or when the job has ended."""
        if episode.fault == WRITERS:
            process.wait(
                episode.moment**2 * undisturbed.seconds
            )  # early, because the second process still has to start
            return
        if not episode.by_files:
            process.wait(episode.moment * undisturbed.seconds)
            return
        target_files = max(1, round(episode.moment * undisturbed.files))
        while _count(folder) < target_files and not process.wait(POLL_S):
            pass

    def _undisturbed_job(self, command: str, where: str) -> UndisturbedJob:
        """The result of a job without faults in a place; it is run once."""
        key = command, where
        if key in self._undisturbed_jobs:
            return self._undisturbed_jobs[key]
        place, job, name = self._place(where), JOBS[command], f"usual-{command}"
        process, code = self._undisturbed_start(
            job, place, name, outcome_of_start := Outcome(_none(command, where))
        )
        result = job.result(place.folder / name)
        if code or outcome_of_start.broken or not result:
            raise TrainingError(
                f"{command} on {where} left with {code}, undisturbed: {process.stderr[-999:]}"
            )
        if where == S3 and (wrong := differences(result, self._undisturbed_job(command, DISK).result)):
            raise TrainingError(f"{command} on S3 is not what it is on disk: {'; '.join(wrong[:5])}")
        self._undisturbed_jobs[key] = UndisturbedJob(result, process.seconds, _count(place.folder / name))
        self._disks.clear(but=name)
        return self._undisturbed_jobs[key]

    def _make_inputs(self, commands: Sequence[str]) -> None:
        """Make the inputs of the other commands with `pack`, `pretrain` and `evaluate`."""
        readers = {
            "pack": ("pretrain", "embed", "evaluate", "predict"),
            "pretrain": ("embed", "evaluate", "predict"),
            "evaluate": ("predict",),
        }
        for maker, name_of_input in (("pack", SET), ("pretrain", RUN), ("evaluate", EVALUATION)):
            if set(readers[maker]) & set(commands):
                self._undisturbed_job(maker, DISK)
                source = self._places[DISK].folder / f"usual-{maker}" / name_of_input
                shutil.copytree(source, self._store / INPUTS / name_of_input)

    def _place(self, name: str) -> Place:
        """The disk, or the store, which is started at its first use."""
        if name not in self._places:
            server = with_new_bucket(self._stack.enter_context(rclone(self._store)))
            proxy = self._stack.enter_context(chaos(server))
            env = {**self._places[DISK].env, **proxy.s3.environment()}
            self._places[name] = Place(server.url, self._store / server.bucket, f"s3://{INPUTS}", env, proxy)
        return self._places[name]


def _none(command: str, place: str) -> Episode:
    return Episode(0, command, place, "none", 0.0, False, 0.0, 0.0, "")


def _count(folder: Path) -> int:
    """Files below a folder that another process writes to."""
    return sum(1 for _ in folder.rglob("*.*"))


def _last(process: WatchedProcess) -> str:
    lines = process.stderr.strip().splitlines()
    return lines[-1][:300] if lines else ""
