"""Estimates how long a save takes, and how long a scheduler waits for it. Needs no torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

ASSUMED_BYTES_PER_S = 0.5e9
"""Assumed bytes per second that the disk or store of a host writes, for all its ranks together."""
# From the source of torch: a run cannot query torchrun.
TORCHRUN, TORCHRUN_DEFAULT_S = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", 30.0
"""torchrun's variable, and its default in seconds (torch 2.15, `torch/distributed/launcher/api.py`)."""
SCONTROL_TIMEOUT_S = 5.0
"""Longest wait for the answer of `scontrol`."""


@dataclass(frozen=True)
class Grace:
    """The time that one scheduler waits for a run that it stops."""

    seconds: float
    source: str
    """The scheduler, which kills the run after that time."""
    remedy: str
    """What to do where the time is too short."""


@dataclass(frozen=True)
class SaveTime:
    """The time that a save takes."""

    seconds: float
    source: str
    """Where the number comes from, for a person."""


def known_graces(env: Mapping[str, str]) -> list[Grace]:
    """The schedulers that may stop this process, as far as their waiting time is known."""
    graces = []
    if "TORCHELASTIC_RUN_ID" in env:
        setting = env.get(TORCHRUN, "")
        seconds = float(setting) if re.fullmatch(r"\d+", setting) else TORCHRUN_DEFAULT_S
        remedy = f"start with launch/, or export {TORCHRUN}=SECONDS before torchrun"
        graces.append(Grace(seconds, f"torchrun ({TORCHRUN})", remedy))
    if "SLURM_JOB_ID" in env:
        graces += scancel_grace(env)
    return graces


def scancel_grace(env: Mapping[str, str]) -> list[Grace]:
    """The time that `scancel` gives a job of this Slurm; empty where there is no Slurm."""
    seconds, remedy = slurm_kill_wait_s(env), "scancel --signal=TERM JOB, which waits for the save"
    return [] if seconds is None else [Grace(seconds, "scancel (Slurm's KillWait)", remedy)]


def slurm_kill_wait_s(env: Mapping[str, str]) -> float | None:
    """Seconds between Slurm's SIGTERM and its SIGKILL; None where no Slurm answers."""
    # A job has no variable with this time: only Slurm's controller knows it.
    if not shutil.which("scontrol"):
        return None
    # A controller that is down or slow must not stop the start of a run: the time is only for a warning.
    with suppress(OSError, subprocess.SubprocessError):
        command = ["scontrol", "show", "config"]
        output = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            timeout=SCONTROL_TIMEOUT_S,
            env={**os.environ, **env},
        )
        if match := re.search(r"^KillWait\s*=\s*(\d+)", output.stdout, re.MULTILINE):
            return float(match[1])
    return None


def expected_save_time(state_bytes: float, weights_bytes: float, hosts: int, step_s: float = 0.0) -> SaveTime:
    """Estimate a save before any was measured.

    `state_bytes`, `weights_bytes`: sizes in a whole checkpoint; `hosts`: number of hosts that write the state
    together; `step_s`: seconds of a step, because the step in progress ends before the save begins.
    """
    # Everything is written twice: to scratch, and from there to the run. Then one rank reads all parts of the
    # weights and writes them as one file.
    copied_bytes = 2 * (state_bytes + weights_bytes) / max(1, hosts) + 2 * weights_bytes
    source = f"assumed: {copied_bytes / 1e9:.2g} GB a host at {ASSUMED_BYTES_PER_S / 1e9:g} GB/s"
    return SaveTime(step_s + copied_bytes / ASSUMED_BYTES_PER_S, source)


def measured_save_time(events: Sequence[Mapping[str, Any]], step_s: float = 0.0) -> SaveTime | None:
    """The longest of the last five saves in a run's events; None where there are none."""
    seconds = [row["took_s"] for row in events if row["event"] == "checkpoint" and "took_s" in row][-5:]
    return SaveTime(step_s + max(seconds), "measured in this run") if seconds else None


def insufficient_graces(graces: Sequence[Grace], save_time: SaveTime) -> list[Grace]:
    """The graces that are shorter than a save."""
    return [grace for grace in graces if grace.seconds < save_time.seconds]


def save_time_lines(graces: Sequence[Grace], save_time: SaveTime, grace_s: float) -> tuple[str, list[str]]:
    """What a run logs on saving at its start: one line, and the warnings of `grace_warnings`.

    `graces`: the schedulers that may stop the run; `grace_s`: the setting `train.grace_s`, in seconds.
    """
    scheduler_times = "".join(f"; {grace.source}: {grace.seconds:g} s" for grace in graces)
    expected = f"about {save_time.seconds:.2g} s ({save_time.source})"
    line = f"a save before a stop takes {expected}; allowed: train.grace_s={grace_s:g}{scheduler_times}"
    return line, grace_warnings(graces, save_time, grace_s)


def grace_warnings(graces: Sequence[Grace], save_time: SaveTime, grace_s: float) -> list[str]:
    """A line for each scheduler that waits less long than a save takes, and one if `train.grace_s` does."""
    expected = f"a save takes about {save_time.seconds:.2g} s ({save_time.source})"
    messages = [
        f"{expected}, but {grace.source} allows {grace.seconds:g} s: a run that is stopped this way would "
        f"lose the steps since its last checkpoint. Instead: {grace.remedy}"
        for grace in insufficient_graces(graces, save_time)
    ]
    if grace_s < save_time.seconds:
        messages.append(f"{expected}, longer than train.grace_s={grace_s:g}: set it higher")
    return messages
