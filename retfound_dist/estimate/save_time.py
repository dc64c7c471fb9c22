"""Estimates how long a save takes, and how long a run has for it once it is asked to stop. Needs no torch."""

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
"""Assumed bytes per second that a host's disk or store takes from all its ranks together."""
# Read from torch's source: a run cannot ask torchrun.
TORCHRUN, TORCHRUN_S = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", 30.0
"""torchrun's variable, and its default in seconds (torch 2.15, `torch/distributed/launcher/api.py`)."""
ASK_S = 5.0
"""Most seconds to wait for Slurm's answer."""


@dataclass(frozen=True)
class Grace:
    """The time that one way of stopping gives a run."""

    seconds: float
    source: str
    """Who kills the run after that."""
    instead: str
    """What to do where the time is too short."""


@dataclass(frozen=True)
class SaveTime:
    """The time that a save takes, and how it is known."""

    seconds: float
    source: str


def known_graces(env: Mapping[str, str]) -> list[Grace]:
    """The ways in which this process may be asked to stop and whose waiting time is known."""
    graces = []
    if "TORCHELASTIC_RUN_ID" in env:
        setting = env.get(TORCHRUN, "")
        seconds = float(setting) if re.fullmatch(r"\d+", setting) else TORCHRUN_S
        instead = f"start with launch/, or export {TORCHRUN}=SECONDS before torchrun"
        graces.append(Grace(seconds, f"torchrun ({TORCHRUN})", instead))
    if "SLURM_JOB_ID" in env:
        graces += cancelling(env)
    return graces


def cancelling(env: Mapping[str, str]) -> list[Grace]:
    """The time that `scancel` gives a job on this Slurm; empty where there is no Slurm."""
    wait, instead = kill_wait(env), "scancel --signal=TERM JOB, which waits for the save"
    return [] if wait is None else [Grace(wait, "scancel (Slurm's KillWait)", instead)]


def kill_wait(env: Mapping[str, str]) -> float | None:
    """Seconds between Slurm's SIGTERM and its SIGKILL; None where there is no Slurm that answers."""
    # Slurm has no variable for it inside a job: only its controller knows.
    if not shutil.which("scontrol"):
        return None
    # A controller that is down or slow must not stop the start of a run: this is only advice.
    with suppress(OSError, subprocess.SubprocessError):
        command = ["scontrol", "show", "config"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=ASK_S, env={**os.environ, **env}
        )
        if shown := re.search(r"^KillWait\s*=\s*(\d+)", done.stdout, re.MULTILINE):
            return float(shown[1])
    return None


def expected(state_bytes: float, weights_bytes: float, hosts: int, step_s: float = 0.0) -> SaveTime:
    """Estimate a save before any was measured.

    `state_bytes`, `weights_bytes`: of a whole checkpoint; `hosts`: they write the state together; `step_s`:
    seconds of a step, which ends before the save begins.
    """
    # Everything is written twice: to scratch and from there to the run. Then one rank reads all parts of the
    # weights and writes them as one file.
    moved = 2 * (state_bytes + weights_bytes) / max(1, hosts) + 2 * weights_bytes
    return SaveTime(step_s + moved / RATE, f"{moved / 1e9:.2g} GB a host at {RATE / 1e9:g} GB/s, assumed")


def measured(events: Sequence[Mapping[str, Any]], step_s: float = 0.0) -> SaveTime | None:
    """The longest of the last five saves in a run's events; None where there are none."""
    took = [row["took_s"] for row in events if row["event"] == "checkpoint" and "took_s" in row][-5:]
    return SaveTime(step_s + max(took), "as measured in this run") if took else None


def insufficient_graces(graces: Sequence[Grace], need: SaveTime) -> list[Grace]:
    """The graces that are shorter than a save."""
    return [grace for grace in graces if grace.seconds < need.seconds]


def lines(graces: Sequence[Grace], need: SaveTime, grace_s: float) -> tuple[str, list[str]]:
    """The line on saving that a run logs at its start, and its warnings."""
    left = "".join(f"; {grace.source}: {grace.seconds:g} s" for grace in graces)
    takes = f"some {need.seconds:.2g} s ({need.source})"
    line = f"asked to stop it saves first: {takes}; train.grace_s={grace_s:g}{left}"
    return line, warnings(graces, need, grace_s)


def warnings(graces: Sequence[Grace], need: SaveTime, grace_s: float) -> list[str]:
    """A line for each waiting time that is shorter than a save."""
    takes = f"a save takes some {need.seconds:.2g} s ({need.source})"
    messages = [
        f"{takes}, but {grace.source} leaves it {grace.seconds:g} s: a run that is stopped so would lose "
        f"what it did since its last checkpoint. Instead: {grace.instead}"
        for grace in insufficient_graces(graces, need)
    ]
    if grace_s < need.seconds:
        messages.append(f"{takes}, longer than train.grace_s={grace_s:g}: set it higher")
    return messages
