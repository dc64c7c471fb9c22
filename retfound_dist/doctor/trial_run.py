"""Runs the real `retfound pretrain` for some steps, saves, and resumes: the steps of the run itself.

Each rank starts its own process of it, with the run's config, shards, model, engine and store. A process that
dies, hangs or runs out of memory is then a result of the doctor, and not its end.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from retfound_dist.doctor.check_result import measure_on_ranks
from retfound_dist.doctor.checkup import Checkup
from retfound_dist.estimate.model_shapes import training_flops
from retfound_dist.formats import run_folder
from retfound_dist.formats.log_rows import read_log
from retfound_dist.runtime.world import OWNER_VARIABLE

STEPS = 20
"""Steps before the save; two more are taken after it, and repeated from it."""
MORE_STEPS = 2
FEWEST_STEPS = 4
TRIAL_SHARE = 0.3
"""Share of the doctor's time for the steps. On a slow device the batch is smaller, and steps are fewer."""
EXPECTED_SHARE = 0.3
"""Share of the matrix rate that the steps are expected to reach."""
LONGEST_S = 900.0
"""A process that takes longer is ended: it hangs."""
SHOWN_LINES = 3
"""Last lines of a process that failed."""


@dataclass(frozen=True)
class TrialSize:
    """How long the trial is."""

    steps: int
    """Before the save."""
    global_batch: int
    micro_batch: int | str
    is_whole_batch: bool
    """Whether the batch is the run's."""


@dataclass(frozen=True)
class Trial:
    """What the two processes of each rank left."""

    size: TrialSize
    rows: Sequence[Mapping[str, Any]]
    """metrics.jsonl: first the steps without a stop, then those after the resume."""
    events: Sequence[Mapping[str, Any]]
    fault: str = ""
    """Why a process failed; empty where none did."""


def trial_size(checkup: Checkup, matrix_rate: float) -> TrialSize:
    """Steps and batch for `TRIAL_SHARE` of the time. `matrix_rate`: operations per second of one rank."""
    config, ranks = checkup.config, checkup.group.world.size
    image_s = training_flops(config.model) / (EXPECTED_SHARE * matrix_rate)
    batch, micro = config.train.global_batch, config.train.micro_batch
    longest = checkup.seconds(TRIAL_SHARE)
    affordable = int(longest / (STEPS + 2 * MORE_STEPS) / image_s) * ranks
    if batch <= affordable:
        return TrialSize(STEPS, batch, micro, is_whole_batch=True)
    rank_batch = max(1, min(affordable // ranks, batch // ranks))
    steps = max(FEWEST_STEPS, min(STEPS, int(longest / (rank_batch * image_s)) - 2 * MORE_STEPS))
    small = rank_batch if micro == "auto" else min(micro, rank_batch)
    return TrialSize(steps, rank_batch * ranks, small, is_whole_batch=False)


def run_trial(checkup: Checkup, size: TrialSize) -> Trial:
    """Train, save, go on, and resume from the save; every rank must call it."""
    fault = ""
    for resume in ("none", str(size.steps)):
        port = checkup.group.broadcast(_free_port() if checkup.group.world.is_main else 0)
        command = trial_command(checkup, size, resume)
        measured = measure_on_ranks(checkup.group, partial(_run_process, command, checkup, port))
        faults = [
            f"rank {rank}: {each.value or each.fault}"
            for rank, each in enumerate(measured)
            if each.value or each.fault
        ]
        if faults:
            # A rank that was ended with the others has only their end to tell.
            fault = max(faults, key=lambda text: "retfound:" in text)
            break
    rows = read_log(checkup.trial_url, run_folder.METRICS).rows
    events = read_log(checkup.trial_url, run_folder.EVENTS).rows
    return Trial(size, rows, events, fault)


def trial_command(checkup: Checkup, size: TrialSize, resume: str) -> list[str]:
    """The command of one process. `resume`: `none`, or the step of the save."""
    settings = {
        "run.url": checkup.trial_url, "run.resume": json.dumps(resume) if resume == "none" else resume,
        "train.steps": size.steps + MORE_STEPS, "train.epochs": 0, "train.global_batch": size.global_batch,
        "train.micro_batch": json.dumps(size.micro_batch), "train.log_every": 1, "train.stop_at_step": 0,
        "train.max_minutes": 0, "train.tensorboard": "false", "train.profile_steps": "[0, 0]",
        "checkpoint.every_steps": size.steps, "data.held_out": '"none"',
    }  # fmt: skip
    return [
        sys.executable, "-m", "retfound_dist", "pretrain", checkup.config_path, *checkup.overrides,
        *(f"{key}={value}" for key, value in settings.items()),
    ]  # fmt: skip


def _run_process(command: Sequence[str], checkup: Checkup, port: int) -> str:
    """Run it; gives its last lines where it fails, else an empty text."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=process_environment(checkup, port)
        )
        try:
            status = process.wait(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return f"no end after {LONGEST_S:.0f} s"
        if status == 0:
            return ""
        output.seek(0)
        lines = output.read().decode(errors="replace").strip().splitlines()
    last_lines = [line for line in lines if line.startswith("retfound:")] or lines[-SHOWN_LINES:]
    return " | ".join(last_lines) or f"exit {status}"


def process_environment(checkup: Checkup, port: int) -> dict[str, str]:
    """The environment of a rank's process: the same place among the ranks, and a meeting place of its own."""
    world = checkup.group.world
    environment = {
        **os.environ,
        "RANK": str(world.rank),
        "WORLD_SIZE": str(world.size),
        "LOCAL_RANK": str(world.local_rank),
        "LOCAL_WORLD_SIZE": str(world.local_size),
        "MASTER_PORT": str(port),
        # torchrun's own store is that of the doctor's ranks: their keys would be mixed up.
        "TORCHELASTIC_USE_AGENT_STORE": "False",
        OWNER_VARIABLE: f"doctor-{checkup.trial_url.rpartition('-')[2]}",
    }
    environment.pop("RETFOUND_START_AGAIN", None)
    return environment


def _free_port() -> int:
    """A port of this host that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])
