"""An episode of `benchmarks.chaos`: a job is struck, started again, and compared with an undisturbed one."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos_faults import DISK, S3, WRITERS, Episode, rules, strike
from benchmarks.chaos_jobs import JOBS, RUN, SET, Job, Result, differences, readable
from benchmarks.chaos_processes import Watched, untold
from benchmarks.chaos_rooms import Rooms
from retfound_dist.errors import TrainingError
from tests.cluster.real_faults import Chaos, chaos
from tests.cluster.real_parts import clean_environment
from tests.cluster.real_s3 import rclone, with_new_bucket

COUNTS = ("lost", "wrong", "untold")
LOOK_S = 0.01
INPUTS = "inputs"
"""A folder, and a bucket: what jobs read."""
FEW, SAID = 5, 25
"""Differences that are named; lines of a job that are shown where a promise was broken."""
STARTS = 2
"""Starts without a fault after which a job must have ended."""


@dataclass
class Outcome:
    """What became of an episode; a line for each broken promise."""

    episode: Episode
    ending: str = ""
    """How the job that was struck left."""
    met: bool = False
    """Whether the fault came while the job ran."""
    said: list[str] = field(default_factory=list)
    """Its last lines."""
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)
    scratch: int = 0
    """Files and folders left in TMPDIR and in memory when all was done."""

    @property
    def broken(self) -> list[str]:
        """All broken promises."""
        return [f"{kind}: {line}" for kind in COUNTS for line in getattr(self, kind)]


@dataclass(frozen=True)
class Usual:
    """A job that nobody disturbed."""

    result: Result
    seconds: float
    files: int


@dataclass(frozen=True)
class Place:
    """Where jobs read and write: a URL, and the same as a folder on this machine."""

    url: str
    folder: Path
    inputs: str
    """URL of what the jobs read."""
    env: Mapping[str, str]
    proxy: Chaos | None = None


class Storm:
    """Places, and what the jobs usually do in them."""

    def __init__(self, folder: Path, commands: Sequence[str], stack: ExitStack) -> None:
        self._folder, self._stack, self._store = folder, stack, folder / "store"
        self._rooms = rooms = Rooms(folder)
        stack.callback(rooms.close)
        env = clean_environment({"TMPDIR": str(rooms.folders["tmp"]), "OMP_NUM_THREADS": "1"})
        out = rooms.folders["out"]
        self._places = {DISK: Place(str(out), out, str(self._store / INPUTS), env)}
        self._usual: dict[tuple[str, str], Usual] = {}
        self._make_inputs(commands)

    def live(self, episode: Episode) -> Outcome:
        """One episode, from its first start to the comparison."""
        outcome, job = Outcome(episode), JOBS[episode.command]
        place, usual = self._place(episode.place), self._undisturbed(episode.command, episode.place)
        name = f"episode-{episode.number}"
        folder = place.folder / name
        done = self._struck(episode, job, place, usual, outcome)
        outcome.wrong += job.half(folder, usual.result)[:FEW]
        for _ in range(STARTS if not done else 0):
            before = job.kept(folder, usual.result)
            again, code = self._alone(job, place, name, outcome)
            outcome.lost += job.redone(before, job.kept(folder, usual.result), again.said)
            if code == 0:
                break
            outcome.lost.append(f"started again without a fault it left with {code}: {_last(again)}")
        outcome.wrong += differences(readable(job.result, folder), usual.result)[:FEW]
        left = self._rooms.left()
        outcome.scratch = sum(map(len, left.values()))
        self._rooms.clear()
        return outcome

    def _struck(self, episode: Episode, job: Job, place: Place, usual: Usual, outcome: Outcome) -> bool:
        """The start that meets the fault, or two at once; whether one of them ended well."""
        name = f"episode-{episode.number}"
        before = place.proxy.faults() if place.proxy else 0
        first = self._start(job, place, name, "struck")
        self._wait_for(episode, first, place.folder / name, usual)
        both, outcome.met = [first], first.code is None
        if episode.fault == WRITERS:
            both.append(self._start(job, place, name, "second"))
        elif first.code is None:
            strike(episode, first, place.proxy, self._rooms)
        for process in both:
            outcome.untold += process.end()
            outcome.untold += untold(process.code or 0, process.said, process.killed, process.struck)
        if place.proxy:
            place.proxy.set(rules=[], down=False)
            outcome.met = outcome.met and not (rules(episode) and place.proxy.faults() == before)
        self._rooms.widen()
        outcome.said = [line for process in both for line in process.said.splitlines()[-SAID:]]
        outcome.ending = ", ".join(f"left with {process.code}" for process in both)
        if told := [_last(process) for process in both if process.code]:
            outcome.ending += f" ({'; '.join(filter(None, told))})"
        return any(process.code == 0 for process in both)

    def _alone(self, job: Job, place: Place, name: str, outcome: Outcome) -> tuple[Watched, int]:
        """A start that nobody disturbs, to its end."""
        process = self._start(job, place, name, "again")
        outcome.untold += process.end()
        code = process.code or 0
        outcome.untold += [f"started again {line}" for line in untold(code, process.said, False)]
        return process, code

    def _start(self, job: Job, place: Place, name: str, log: str) -> Watched:
        words = job.words(place.inputs, f"{place.url}/{name}", str(self._rooms.folders["cache"]))
        command = [sys.executable, "-m", "retfound_dist", *words]
        return Watched(command, place.env, self._folder / f"{name}-{job.name}-{log}.log")

    def _wait_for(self, episode: Episode, process: Watched, folder: Path, usual: Usual) -> None:
        """Return at the moment of the fault, or when the job is done."""
        if episode.fault == WRITERS:
            process.wait(episode.moment**2 * usual.seconds)  # soon: the second has to start yet
            return
        if not episode.by_files:
            process.wait(episode.moment * usual.seconds)
            return
        wanted = max(1, round(episode.moment * usual.files))
        while _count(folder) < wanted and not process.wait(LOOK_S):
            pass

    def _undisturbed(self, command: str, where: str) -> Usual:
        """What a job leaves in a place where nothing happens."""
        key = command, where
        if key in self._usual:
            return self._usual[key]
        place, job, name = self._place(where), JOBS[command], f"usual-{command}"
        process, code = self._alone(job, place, name, alone := Outcome(_none(command, where)))
        result = job.result(place.folder / name)
        if code or alone.broken or not result:
            raise TrainingError(f"{command} on {where} left with {code}, undisturbed: {process.said[-999:]}")
        if where == S3 and (wrong := differences(result, self._undisturbed(command, DISK).result)):
            raise TrainingError(f"{command} on S3 is not what it is on disk: {'; '.join(wrong[:5])}")
        self._usual[key] = Usual(result, process.seconds, _count(place.folder / name))
        self._rooms.clear(but=name)
        return self._usual[key]

    def _make_inputs(self, commands: Sequence[str]) -> None:
        """What other commands read, made by `pack` and `pretrain` themselves."""
        readers = {"pack": ("pretrain", "embed", "evaluate"), "pretrain": ("embed", "evaluate")}
        for maker, what in (("pack", SET), ("pretrain", RUN)):
            if set(readers[maker]) & set(commands):
                self._undisturbed(maker, DISK)
                made = self._places[DISK].folder / f"usual-{maker}" / what
                shutil.copytree(made, self._store / INPUTS / what)

    def _place(self, name: str) -> Place:
        """The disk, or the store, which is started when it is first asked for."""
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


def _last(process: Watched) -> str:
    lines = process.said.strip().splitlines()
    return lines[-1][:300] if lines else ""
