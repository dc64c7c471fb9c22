"""What goes wrong in `benchmarks.chaos`, and when: drawn from a seed, carried out on real parts."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from benchmarks.chaos_processes import Watched
from benchmarks.chaos_rooms import Rooms
from tests.cluster.real_faults import Chaos

COMMANDS = ("pack", "pretrain", "embed", "evaluate")
"""Commands that the storm is over; a new one (`predict`) is added here and in `chaos_jobs.JOBS`."""
DISK, S3 = "disk", "S3"
KILL, WRITERS, FULL, READ = "kill -9", "two writers", "full disk", "flip read"
PLACES = {
    KILL: (DISK, S3), WRITERS: (DISK, S3), FULL: (DISK, S3), READ: (S3,), "flip written": (S3,),
    "reset": (S3,), "503": (S3,), "stall": (S3,), "outage": (S3,),
}  # fmt: skip
"""Faults, and where each can be met; `flip`: one bit of one body."""
OFTEN = {KILL: 3}
"""Times that a fault comes in each round of all of them; else once."""
ROOMS = {"pack": ("tmp", "out"), "pretrain": ("tmp", "out", "cache", "shm")}
"""Disks that can be full; of other commands the first two."""
BALLAST = 1 << 20
"""Bytes that a full disk has left, at most."""
OUTAGE_S = 20.0
"""Seconds that a store is gone, at most."""
ANY = ["GET", "HEAD", "PUT", "POST", "DELETE"]
NO_LIST = "list-type"
"""In the path of a listing. S3 has no checksum for one, so nobody could notice a flip there."""


@dataclass(frozen=True)
class Episode:
    """One job that one fault strikes; shares are drawn from 0 to 1."""

    number: int
    command: str
    place: str
    fault: str
    moment: float
    """When: share of the usual time or, `by_files`, of the files that the job usually leaves (those come late
    where a job reads first and writes at its end)."""
    by_files: bool
    amount: float
    """How much of it, from the least to the most."""
    victim: float
    """Whom a kill meets: below a half the main process, below three quarters all, else one of the others."""
    room: str
    """The disk that is full."""

    def __str__(self) -> str:
        what = f"{self.fault} of {self.room}" if self.fault == FULL else self.fault
        when = f"{self.moment:.0%} of {'files' if self.by_files else 'time'}"
        return f"episode {self.number}: {self.command} on {self.place}, {what} at {when}"


def episodes(seed: int, commands: Sequence[str] = COMMANDS) -> Iterator[Episode]:
    """Without end: every fault of every command in every place, in an order of its own each round."""
    draw, number = random.Random(seed), 0
    while True:
        kinds = [
            (command, place, fault)
            for command in COMMANDS
            for fault, places in PLACES.items()
            for place in places
            for _ in range(OFTEN.get(fault, 1))
        ]
        draw.shuffle(kinds)
        for kind in kinds:
            shares = [draw.random() for _ in range(4)]
            room = draw.choice(rooms_of(kind[0], kind[1]))
            number += 1
            if kind[0] in commands:
                by_files = shares[1] > 0.4 and kind[0] != "embed" and kind[2] != READ
                yield Episode(number, *kind, shares[0], by_files, shares[2], shares[3], room)


def rooms_of(command: str, place: str) -> tuple[str, ...]:
    """Disks that a command writes to."""
    rooms = ROOMS.get(command, ("tmp", "out"))
    return tuple(room for room in rooms if (room, place) != ("out", S3))


def rules(episode: Episode) -> list[dict[str, Any]]:
    """What the proxy before the store does, in its own words."""

    def some(most: int) -> dict[str, Any]:
        return {"share": 0.5, "times": 1 + int(episode.amount * most)}

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


def strike(episode: Episode, job: Watched, proxy: Chaos | None, rooms: Rooms) -> None:
    """Carry it out on a job that runs."""
    if episode.fault == KILL:
        kill(job, episode.victim)
    elif episode.fault == FULL:
        rooms.squeeze(episode.room, int(episode.amount**2 * BALLAST))
    elif episode.fault == "outage":
        assert proxy is not None
        proxy.set(down=True)
        job.wait(episode.amount * OUTAGE_S)
        proxy.set(down=False)
    elif proxy is not None:
        proxy.set(seed=episode.number, rules=rules(episode))


def kill(job: Watched, victim: float) -> None:
    """kill -9 of the main process, of all of them, or of one that it has started."""
    others = [pid for pid in job.tree() if pid != job.pid]
    if victim < 0.5 or (victim >= 0.75 and not others):
        met = [job.pid]
    elif victim < 0.75:
        met = [job.pid, *others]
    else:
        met = [others[int((victim - 0.75) * 4 * len(others))]]
    job.killed, job.struck = job.pid in met, True
    for pid in met:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
