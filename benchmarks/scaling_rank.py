"""One rank of `benchmarks.scaling`: time and sent bytes of the trainer's own step at ZeRO 1, 2 and 3.

Started by:

    torchrun --nproc-per-node 2 -m benchmarks.scaling_rank OUT.json STEPS
"""

from __future__ import annotations

import json
import os
import socket
import stat
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from retfound_dist.config.schema import Data, Model, PretrainConfig, Run, Train
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.model.cpu_bf16 import choose_cpu_operators
from retfound_dist.model.flops import training_flops
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.plan.forecast import PERSISTENCE_THRESHOLD
from retfound_dist.runtime.world import read_world
from retfound_dist.stream.batch_plan import BatchPlan, make_batch_layout
from retfound_dist.stream.loader import MicroBatch
from retfound_dist.train.engine.deepspeed_engine import DeepSpeedEngine
from retfound_dist.train.engine.engine_choice import make_engine
from retfound_dist.train.health.sample_faults import SampleFaults
from retfound_dist.train.logs.telemetry import Clock
from retfound_dist.train.parameter_groups import parameter_groups
from retfound_dist.train.ranks.collectives import RankGroup
from retfound_dist.train.ranks.process_group import join_ranks, leave_ranks
from retfound_dist.train.schedule import RunSchedule
from retfound_dist.train.train_step import train_step

STAGES, WARM_UP, PAYLOAD = (1, 2, 3), 2, 16_000_000
SMALL = Model(name="vit_small_patch16", image_size=112, decoder_width=192, decoder_depth=2, decoder_heads=6)
SMALL_BATCH, LARGE_BATCH = (8, 2), (512, 64)
"""Global batch and micro-batch on a CPU, and on GPUs, where the model is the paper's."""
BYTES_ACKED = 120
"""Offset in Linux's `struct tcp_info` of tcpi_bytes_acked, a u64: payload the other side has received."""


def sent() -> int:
    """Bytes that this process has sent over all its TCP connections, which are all gloo's."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(f"/proc/self/fd/{name}").st_mode):
                total += acknowledged(int(name))
    return total


def acknowledged(descriptor: int) -> int:
    """Bytes that the other end of a TCP connection has received; 0 for another kind of socket."""
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        if (
            connection.family not in (socket.AF_INET, socket.AF_INET6)
            or connection.type != socket.SOCK_STREAM
        ):
            return 0
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return int(struct.unpack_from("Q", info, BYTES_ACKED)[0])


def schedule_of(stage: int, ranks: int) -> RunSchedule:
    """A run's constants, without a shard set."""
    gpu = torch.cuda.is_available()
    batch, micro = LARGE_BATCH if gpu else SMALL_BATCH
    train_settings: dict[str, Any] = {"zero_stage": stage, "threads": 0 if gpu else 1}
    train = Train(global_batch=batch, micro_batch=micro, steps=10_000, **train_settings)
    model = Model() if gpu else SMALL
    config = PretrainConfig(run=Run(url=""), data=Data(shards=""), model=model, train=train)
    nothing = Manifest("", 0, (), {}, {}, ())
    return RunSchedule(
        config,
        nothing,
        BatchPlan((100_000,), 0, batch, 1),
        make_batch_layout(batch, ranks, micro),
        train.steps,
    )


def batches(work: RunSchedule, patches: int) -> Iterator[MicroBatch]:
    """An endless sequence of random images."""
    draw = torch.Generator().manual_seed(0)
    micro, (height, width) = work.layout.micro, work.config.model.size
    while True:
        images = torch.randint(0, 256, (micro, 1, height, width), dtype=torch.uint8, generator=draw)
        yield MicroBatch(0, images, torch.rand(micro, patches, generator=draw), torch.ones(micro), [], 0)


class Trainer:
    """A model and its engine at one stage."""

    def __init__(self, group: RankGroup, stage: int) -> None:
        self.group, self.schedule = group, schedule_of(stage, group.world.size)
        config = self.schedule.config
        torch.manual_seed(config.train.seed)
        self.model = MaskedAutoencoder(config.model)
        if group.device.type == "cpu":
            choose_cpu_operators(self.model, config.train.precision)
        sizes = [p.numel() for p in self.model.parameters() if p.requires_grad]
        self.parameters, self.small = sum(sizes), sum(n for n in sizes if n <= PERSISTENCE_THRESHOLD)
        groups = parameter_groups(self.model, config.optim)
        self.engine = make_engine(
            self.model.to(group.device), groups, config.train, config.optim, self.schedule.layout
        )
        self.batches, self.update_s = batches(self.schedule, self.model.patches), 0.0
        engine: Any = self.engine
        if isinstance(engine, DeepSpeedEngine):
            self._update, engine.sharded.step = engine.sharded.step, self._timed_update
        else:
            self._update, engine.update_weights = engine.update_weights, self._timed_update
        for _ in range(WARM_UP):
            self.step()

    def _timed_update(self, *args: Any, **named: Any) -> Any:
        begun = wait(self.group)
        result = self._update(*args, **named)
        self.update_s = wait(self.group) - begun
        return result

    def step(self) -> tuple[float, int]:
        """One step of the trainer: seconds, and bytes sent."""
        self.group.sum(torch.zeros((), device=self.group.device))
        before, begun = sent(), wait(self.group)
        train_step(self.engine, self.batches, self.schedule, self.group, Clock(), SampleFaults(0), 0)
        self.group.sum(torch.zeros((), device=self.group.device))
        return wait(self.group) - begun, sent() - before


def wait(group: RankGroup) -> float:
    """The time when the device has finished."""
    if group.device.type == "cuda":
        torch.cuda.synchronize(group.device)
    return time.perf_counter()


def links(group: RankGroup, rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds of each collective on 64 MB of fp32, and bytes that each rank sends for one byte of it."""
    payload = torch.zeros(PAYLOAD // group.world.size * group.world.size, device=group.device)
    payload_part = torch.zeros(len(payload) // group.world.size, device=group.device)
    results = {}
    calls: dict[str, Callable[[], Any]] = {
        "all_reduce": lambda: dist.all_reduce(payload),
        "reduce_scatter": lambda: dist.reduce_scatter_tensor(payload_part, payload),
        "all_gather": lambda: dist.all_gather_into_tensor(payload, payload_part),
    }
    for name, call in calls.items():
        call()
        times, before = [], sent()
        for _ in range(rounds):
            group.sum(torch.zeros((), device=group.device))
            begun = wait(group)
            call()
            times.append(wait(group) - begun)
        payload_bytes = rounds * len(payload) * payload.element_size()
        results[name] = {"seconds": times, "sent_per_byte": (sent() - before) / payload_bytes}
    return results


def main() -> None:
    """Measure; rank 0 writes the results."""
    out, steps = Path(sys.argv[1]), int(sys.argv[2])
    world = read_world(os.environ)
    group = join_ranks(world, schedule_of(1, world.size).config.train.threads)
    trainers = {stage: Trainer(group, stage) for stage in STAGES}
    first = trainers[STAGES[0]]
    results: dict[int, dict[str, list[float]]] = {
        stage: {"seconds": [], "sent": [], "update": []} for stage in STAGES
    }
    for _ in range(steps):
        for stage, trainer in trainers.items():
            seconds, count = trainer.step()
            results[stage]["seconds"].append(seconds)
            results[stage]["sent"].append(statistics.mean(group.gather(count)))
            results[stage]["update"].append(trainer.update_s)
    report = {
        "stages": {str(stage): kinds for stage, kinds in results.items()},
        "links": links(group, 5) if world.size > 1 else {},
        "parameters": first.parameters,
        "small_parameters": first.small,
        "flops_per_image": training_flops(first.model),
        "global_batch": first.schedule.layout.global_batch,
        "micro": first.schedule.layout.micro,
        "accumulation": first.schedule.layout.accumulation,
        "model": first.schedule.config.model.name,
        "bytes_counted": group.device.type == "cpu",
    }
    if world.is_main:
        out.write_text(json.dumps(report))
    leave_ranks()


if __name__ == "__main__":
    main()
