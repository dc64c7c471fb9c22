"""The faults of `benchmarks.chaos` and their times: drawn from a seed, applied to real processes."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from benchmarks.chaos_disks import Disks
from benchmarks.chaos_processes import WatchedProcess
from tests.cluster.real_faults import Chaos

COMMANDS = ("pack", "pretrain", "embed", "evaluate", "predict")
"""The tested commands. A new one is added here and in `chaos_jobs.JOBS`."""
DISK, S3 = "disk", "S3"
KILL, WRITERS, FULL, READ = "kill -9", "two writers", "full disk", "flip read"
PLACES = {
    KILL: (DISK, S3), WRITERS: (DISK, S3), FULL: (DISK, S3), READ: (S3,), "flip written": (S3,),
    "reset": (S3,), "503": (S3,), "stall": (S3,), "outage": (S3,),
}  # fmt: skip
"""Each fault and the places where it can happen; `flip`: one bit of one response or request."""
REPEATS = {KILL: 3}
"""How often a fault comes in a round of all faults, where it is not once."""
DISKS = {"pack": ("tmp", "out"), "pretrain": ("tmp", "out", "cache", "shm")}
"""Disks that can be full, by command; for other commands `tmp` and `out`."""
BALLAST = 1 << 20
"""Most bytes that a full disk has left."""
OUTAGE_S = 20.0
"""Most seconds that a store is unreachable."""
ANY = ["GET", "HEAD", "PUT", "POST", "DELETE"]
NO_LIST = "list-type"
"""Part of the path of a listing. S3 has no checksum for a listing, so a flipped bit could not be noticed."""


@dataclass(frozen=True)
class Episode:
    """One job with one fault. The numbers are drawn from 0 to 1."""

    number: int
    command: str
    place: str
    fault: str
    moment: float
    """Time of the fault: a share of the undisturbed time or, if `by_files`, of the number of files."""
    by_files: bool
    amount: float
    """Strength of the fault, from the least to the most."""
    target: float
    """Which process a kill hits: below 0.5 the main one, below 0.75 all, else one of the others."""
    disk: str
    """The disk that is filled."""

    def __str__(self) -> str:
        fault = f"{self.fault} of {self.disk}" if self.fault == FULL else self.fault
        when = f"{self.moment:.0%} of {'files' if self.by_files else 'time'}"
        return f"episode {self.number}: {self.command} on {self.place}, {fault} at {when}"


def episodes(seed: int, commands: Sequence[str] = COMMANDS) -> Iterator[Episode]:
    """An endless sequence: each round has every fault of every command in every place, in a new order."""
    draw, number = random.Random(seed), 0
    while True:
        kinds = [
            (command, place, fault)
            for command in COMMANDS
            for fault, places in PLACES.items()
            for place in places
            for _ in range(REPEATS.get(fault, 1))
        ]
        draw.shuffle(kinds)
        for kind in kinds:
            shares = [draw.random() for _ in range(4)]
            disk = draw.choice(disks_of(kind[0], kind[1]))
            number += 1
            if kind[0] in commands:
                by_files = shares[1] > 0.4 and kind[0] not in ("embed", "predict") and kind[2] != READ
                yield Episode(number, *kind, shares[0], by_files, shares[2], shares[3], disk)


def disks_of(command: str, place: str) -> tuple[str, ...]:
    """Disks that a command writes to."""
    disks = DISKS.get(command, ("tmp", "out"))
    return tuple(disk for disk in disks if (disk, place) != ("out", S3))


def rules(episode: Episode) -> list[dict[str, Any]]:
    """The rules of the proxy in front of the store."""

    def some(most_requests: int) -> dict[str, Any]:
        return {"share": 0.5, "times": 1 + int(episode.amount * most_requests)}

    kinds: dict[str, list[dict[str, Any]]] = {
        READ: [{"fault": "flip", "methods": ["GET"], "unless": NO_LIST, **some(3)}],
        "flip written": [{"fault": "damage", "methods": ["PUT"], **some(3)}],
        "reset": [
            {"fault": "reset", "methods": ["GET"], **some(6)},
            {"fault": "lost", "methods": ["PUT", "POST", "DELETE"], **some(3)},
        ],
        "503": [{"fault": "503", "methods": ANY, **some(40)}],
        "stall": [{"fault": "stall", "methods": ANY, **some(2)}],
    }
    return kinds.get(episode.fault, [])


def apply_fault(episode: Episode, job: WatchedProcess, proxy: Chaos | None, disks: Disks) -> None:
    """Apply an episode's fault to a running job."""
    if episode.fault == KILL:
        kill(job, episode.target)
    elif episode.fault == FULL:
        disks.shrink(episode.disk, int(episode.amount**2 * BALLAST))
    elif episode.fault == "outage":
        assert proxy is not None
        proxy.set(down=True)
        job.wait(episode.amount * OUTAGE_S)
        proxy.set(down=False)
    elif proxy is not None:
        proxy.set(seed=episode.number, rules=rules(episode))


def kill(job: WatchedProcess, target: float) -> None:
    """kill -9 the main process, all processes, or one that it started."""
    others = [pid for pid in job.tree() if pid != job.pid]
    if target < 0.5 or (target >= 0.75 and not others):
        pids = [job.pid]
    elif target < 0.75:
        pids = [job.pid, *others]
    else:
        pids = [others[int((target - 0.75) * 4 * len(others))]]
    job.killed, job.was_hit = job.pid in pids, True
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
