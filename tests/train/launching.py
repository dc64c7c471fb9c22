"""Starts real runs: `retfound pretrain` alone or under torchrun, on a small shard set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retfound_dist.config.schema import PretrainConfig
from retfound_dist.formats.shard_set import read_index, read_manifest
from retfound_dist.stream.batch_plan import batch_digest
from retfound_dist.stream.loader import make_plan
from tests import ROOT, preloaded

SMALL = [
    "model.image_size=28", "model.decoder_width=32", "model.decoder_depth=1", "model.decoder_heads=2",
    "data.split=all", "data.workers=0", "data.window_shards=2", "train.micro_batch=4", "train.global_batch=10",
    "train.log_every=1", "train.threads=1",
]  # fmt: skip


def start(ranks: int, run: Path | str, shards: str, *overrides: str) -> subprocess.Popen[str]:
    """Begin a run."""
    launcher = [sys.executable, "-m", "torch.distributed.run"] if ranks > 1 else [sys.executable]
    return _start([*launcher, *_nodes(ranks), "-m", "retfound_dist"], run, shards, overrides)


def pretrain(ranks: int, run: Path | str, shards: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Run to the end and give what it printed. The ranks are forked from a process with their libraries."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--no-python"] if ranks > 1 else []
    with _start([*launcher, *_nodes(ranks), *preloaded.retfound()], run, shards, overrides) as process:
        try:
            out, errors = process.communicate(timeout=500)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


def _nodes(ranks: int) -> list[str]:
    """torchrun's options."""
    return ["--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []


def _start(
    launcher: Sequence[str], run: Path | str, shards: str, overrides: Sequence[str]
) -> subprocess.Popen[str]:
    where = ["configs/demo/pretrain.toml", f"run.url={run}", f"data.shards={shards}"]
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")} | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*launcher, "pretrain", *where, *SMALL, *overrides],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=ROOT,
    )  # fmt: skip


def metrics(run: Path | str) -> list[dict[str, Any]]:
    """A local run's rows."""
    return [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


def expected_digests(config: PretrainConfig, shards: str, steps: int) -> list[str]:
    """The batch digest of each step of a run on the shards at a URL: no training, pure arithmetic."""
    manifest = read_manifest(shards)
    part = manifest.part(config.data.split)
    keys = [[entry.key for entry in read_index(manifest.url, shard)] for shard in part]
    plan = make_plan(manifest, config.data, config.train.global_batch, config.train.seed)
    batches = (plan.batch(step) for step in range(steps))
    return [
        f"{batch_digest([keys[s][i] for s, i in zip(b.shard, b.index, strict=True)]):016x}" for b in batches
    ]
