"""How long a run has to save once it is asked to stop, and how long a save takes. Needs no torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

RATE = 0.5e9
"""Bytes per second that a host's disk or store is assumed to take, all its ranks together."""
TORCHRUN, TORCHRUN_S = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", 30.0
"""torchrun's variable, and what it waits without it (torch 2.15, `torch/distributed/launcher/api.py`)."""
ASK_S = 5.0
"""Longest time for Slurm to answer."""


@dataclass(frozen=True)
class Grace:
    """What one way of stopping leaves a run."""

    seconds: float
    source: str
    """Who ends it after that."""
    instead: str
    """What to do where it is too short."""


@dataclass(frozen=True)
class SaveTime:
    """What a save takes, and how that is known."""

    seconds: float
    source: str


def known_graces(env: Mapping[str, str]) -> list[Grace]:
    """Of the ways in which this process may be asked to stop those whose patience is known."""
    found = []
    if "TORCHELASTIC_RUN_ID" in env:
        said = env.get(TORCHRUN, "")
        seconds = float(said) if re.fullmatch(r"\d+", said) else TORCHRUN_S
        instead = f"start with launch/, or export {TORCHRUN}=SECONDS before torchrun"
        found.append(Grace(seconds, f"torchrun ({TORCHRUN})", instead))
    if "SLURM_JOB_ID" in env:
        found += cancelling(env)
    return found


def cancelling(env: Mapping[str, str]) -> list[Grace]:
    """What `scancel` leaves a job of the Slurm that is here; nothing where there is none."""
    wait, instead = kill_wait(env), "scancel --signal=TERM JOB, which waits for the save"
    return [] if wait is None else [Grace(wait, "scancel (Slurm's KillWait)", instead)]


def kill_wait(env: Mapping[str, str]) -> float | None:
    """Seconds between Slurm's SIGTERM and its SIGKILL, where there is a Slurm that can be asked."""
    if not shutil.which("scontrol"):
        return None
    with suppress(OSError, subprocess.SubprocessError):
        command = ["scontrol", "show", "config"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=ASK_S, env={**os.environ, **env}
        )
        if shown := re.search(r"^KillWait\s*=\s*(\d+)", done.stdout, re.MULTILINE):
            return float(shown[1])
    return None


def expected(state_bytes: float, weights_bytes: float, hosts: int, step_s: float = 0.0) -> SaveTime:
    """A save before any was measured: the state goes to scratch and to the run, the weights to the run, from
    where one rank puts them together; before that the step under way ends.

    `state_bytes`, `weights_bytes`: of a whole checkpoint; `hosts` share the state out.
    """
    moved = 2 * (state_bytes + weights_bytes) / max(1, hosts) + 2 * weights_bytes
    return SaveTime(step_s + moved / RATE, f"{moved / 1e9:.2g} GB a host at {RATE / 1e9:g} GB/s, assumed")


def measured(events: Sequence[Mapping[str, Any]], step_s: float = 0.0) -> SaveTime | None:
    """From the run's own events: the longest of its last saves; None where it has none."""
    took = [row["took_s"] for row in events if row["event"] == "checkpoint" and "took_s" in row][-5:]
    return SaveTime(step_s + max(took), "as measured in this run") if took else None


def too_short(graces: Sequence[Grace], need: SaveTime) -> list[Grace]:
    """Those that end a run before it is saved."""
    return [grace for grace in graces if grace.seconds < need.seconds]


def lines(graces: Sequence[Grace], need: SaveTime, grace_s: float) -> tuple[str, list[str]]:
    """What a run says at its start, and what it warns of."""
    left = "".join(f"; {grace.source}: {grace.seconds:g} s" for grace in graces)
    takes = f"some {need.seconds:.2g} s ({need.source})"
    said = f"asked to stop it saves first: {takes}; train.grace_s={grace_s:g}{left}"
    return said, warnings(graces, need, grace_s)


def warnings(graces: Sequence[Grace], need: SaveTime, grace_s: float) -> list[str]:
    """One line for each patience that is shorter than a save."""
    takes = f"a save takes some {need.seconds:.2g} s ({need.source})"
    found = [
        f"{takes}, but {grace.source} leaves it {grace.seconds:g} s: a run that is stopped so would lose "
        f"what it did since its last checkpoint. Instead: {grace.instead}"
        for grace in too_short(graces, need)
    ]
    if grace_s < need.seconds:
        found.append(f"{takes}, longer than train.grace_s={grace_s:g}: set it higher")
    return found
