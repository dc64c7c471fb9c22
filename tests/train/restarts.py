"""Several starts of runs on ranks that meet once: what they leave, and what a start has in memory when ready."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from retfound_dist.config.loading import to_dict
from retfound_dist.config.schema import Checkpoint, Data, Model, Optim, PretrainConfig, Run, Train
from retfound_dist.formats.content_identity import SHARD_SET, describe_set
from retfound_dist.formats.shard_set import read_manifest
from retfound_dist.io.scratch import Scratch
from retfound_dist.runtime.world import World
from retfound_dist.train import pretrain
from retfound_dist.train.checkpoint.merge_weights import group_shapes, merge, rank_weights
from retfound_dist.train.logs.telemetry import training_display
from retfound_dist.train.ranks.preemption import StopRequest
from retfound_dist.train.ranks.process_group import join_ranks, leave_ranks
from retfound_dist.train.ranks.rank_failures import RankFailures
from retfound_dist.train.ranks.upload_process import UploadProcess
from retfound_dist.train.ranks.watchdog import Watchdog
from retfound_dist.train.run_setup import ReadyRun, RunContext, prepare_run
from tests.train.engine_state import clipping_of

MODEL = Model(name="vit_demo_patch14", image_size=28, decoder_width=32, decoder_depth=1, decoder_heads=2)


@dataclass(frozen=True)
class Begin:
    """One start; with `dump` what is in memory before its first step goes to that file."""

    config: PretrainConfig
    dump: str = ""


def config(shards: str, run: str, init: str, stage: int, precision: str, stop: int = 0) -> PretrainConfig:
    """Four steps of ten images, a checkpoint after two."""
    train = Train(
        global_batch=10,
        micro_batch=4,
        steps=4,
        zero_stage=stage,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
        log_every=1,
        threads=1,
        stop_at_step=stop,
    )
    return PretrainConfig(
        run=Run(url=run),
        data=Data(shards=shards, workers=0, window_shards=2),
        model=replace(MODEL, init=init),
        optim=Optim(base_lr=4e-3, warmup_epochs=0, clip_grad=0.5),
        train=train,
        checkpoint=Checkpoint(every_steps=2, keep_last=9),
    )


def on_ranks(ranks: int, starts: Sequence[Begin]) -> None:
    """All starts, one after the other, on so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_one_rank, (ranks, port, tuple(starts)), nprocs=ranks)


def _one_rank(rank: int, ranks: int, port: int, starts: Sequence[Begin]) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID=f"restarts{port}")
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank))
    world = World(rank, ranks, rank, owner=f"restarts{port}")
    group = join_ranks(world, threads=1)
    for each in starts:
        with training_display(shown=False) as display, Scratch("restarts", world.owner) as scratch:
            manifest = read_manifest(each.config.data.shards)
            uploads, watchdog = UploadProcess(each.config.run.url), Watchdog(world, 0)
            start = RunContext(
                each.config, {**to_dict(each.config), SHARD_SET: describe_set(manifest)}, manifest, group, display,
                uploads, StopRequest(), watchdog, scratch.folder, RankFailures(group, watchdog),
            )  # fmt: skip
            pretrain.prepare_run = partial(_dumped, each.dump) if each.dump else prepare_run
            pretrain.run_joined(start)
        group.broadcast(None)
        gc.collect()
    leave_ranks()


def _dumped(where: str, start: RunContext) -> ReadyRun:
    """Ready, with what it trains on from here written down: fp32 weights, working copies, the rest."""
    import deepspeed

    ready, group = prepare_run(start), start.group
    working = {}
    for name, p in ready.model.named_parameters():
        with deepspeed.zero.GatheredParameters([p], enabled=ready.zero_stage == 3):
            working[name] = p.detach().clone()
    state = ready.engine.snapshot(start.scratch, {})
    torch.save(rank_weights(state), f"{where}.{group.world.rank}")
    dist.barrier()
    if group.world.is_main:
        parts = [torch.load(f"{where}.{rank}", weights_only=True) for rank in range(group.world.size)]
        memory: dict[str, Any] = {"masters": merge(parts, group_shapes(state)), "fixed": ready.untrained}
        memory |= {"clip": clipping_of(ready.engine), "step": ready.step, "state": ready.run_state}
        torch.save(memory | {"working": working, "buffers": dict(ready.model.named_buffers())}, where)
    dist.barrier()
    Path(f"{where}.{group.world.rank}").unlink()
    return ready
