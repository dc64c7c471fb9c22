"""One rung of `benchmarks.train_speed`. It has its own process, so that its memory can be measured.

python -m benchmarks.train_rank SPEC.json OUT.json
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.train_ladder import Climber, MasterAdamW, Rung, rgb
from retfound_dist.config.schema import Data, Model, Optim, PretrainConfig, Run, Train
from retfound_dist.formats.shard_set import Manifest, read_manifest
from retfound_dist.model.compilation import compile_model
from retfound_dist.model.cpu_bf16 import choose_cpu_operators
from retfound_dist.model.flops import matrix_rate, training_flops
from retfound_dist.runtime.world import World
from retfound_dist.stream.batch_plan import BatchLayout, BatchPlan, make_batch_layout
from retfound_dist.stream.loader import MicroBatch, open_stream
from retfound_dist.train.engine import deepspeed_patches
from retfound_dist.train.engine.deepspeed_engine import DeepSpeedEngine
from retfound_dist.train.engine.engine_choice import make_engine
from retfound_dist.train.engine.memory_meter import MemoryMeter, release_freed_memory
from retfound_dist.train.engine.training_engine import TrainingEngine
from retfound_dist.train.health.sample_faults import SampleFaults
from retfound_dist.train.logs.telemetry import Clock
from retfound_dist.train.parameter_groups import parameter_groups
from retfound_dist.train.ranks.collectives import RankGroup
from retfound_dist.train.ranks.process_group import join_ranks
from retfound_dist.train.schedule import RunSchedule
from retfound_dist.train.train_step import train_step

SEED, LR = 0, 1e-5


def wait(device: torch.device) -> float:
    """The time when the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def passes(rung: Rung, spec: dict[str, Any], patches: int) -> Iterator[MicroBatch]:
    """An endless sequence of two different passes, made before the measurement."""
    draw = torch.Generator().manual_seed(SEED)
    micro, side, batches = rung.micro or spec["micro"], spec["model"]["image_size"], []
    for _ in range(min(2, spec["batch"] // micro)):
        images = torch.randint(0, 256, (micro, 1, side, side), dtype=torch.uint8, generator=draw)
        shown = images if rung.grey else rgb(images)
        batch = MicroBatch(0, shown, torch.rand(micro, patches, generator=draw), torch.ones(micro), [], 0)
        batches.append(batch.pin_memory() if torch.cuda.is_available() else batch)
    return itertools.cycle(batches)


class PlainLoop:
    """A loop without DeepSpeed: the usual one, or with this project's optimizations."""

    def __init__(self, model: Climber, rung: Rung, spec: dict[str, Any], device: torch.device) -> None:
        self.model, self.rung, self.device = model.to(device), rung, device
        self.count = spec["batch"] // (rung.micro or spec["micro"])
        groups = parameter_groups(model, Optim())
        self.optimizer: Any
        if rung.precision == "bf16":
            groups = parameter_groups(model.bfloat16(), Optim())
            self.optimizer = MasterAdamW(groups, rung.fused)
        else:
            self.optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), fused=rung.fused or None)
        self.autocast: Any = nullcontext()
        if rung.precision == "autocast":
            self.autocast = torch.autocast(device.type, torch.bfloat16)

    def step(self, batches: Iterator[MicroBatch]) -> Tensor:
        """Do one step; returns the batch's mean loss."""
        total = torch.zeros((), device=self.device)
        for part in itertools.islice(batches, self.count):
            images, noise = (t.to(self.device, non_blocking=True) for t in (part.images, part.noise))
            with self.autocast:
                loss = self.model(images, noise).mean()
            (loss / self.count).backward()
            total += loss.detach() / self.count
            if not self.rung.unread:
                loss.item()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total


def make_unpatched_deepspeed(
    model: nn.Module, groups: list[dict[str, Any]], train: Train, optim: Optim, layout: BatchLayout
) -> TrainingEngine:
    """DeepSpeed's engine without this project's changes. Only for a process that makes no other engine."""
    unchanged: Any = deepspeed_patches
    unchanged.checks_on_device = nullcontext
    unchanged.skip_bad_steps = lambda sharded, optimizer: None
    return DeepSpeedEngine(model, groups, train, optim, layout, max(1, train.zero_stage))


class OwnLoop:
    """This project's step."""

    def __init__(self, model: Climber, rung: Rung, spec: dict[str, Any], device: torch.device) -> None:
        batch, micro = spec["batch"], rung.micro or spec["micro"]
        self.group = RankGroup(World(), device)
        train_settings: Any = {
            "zero_stage": rung.zero,
            "precision": rung.precision,
            "threads": spec["threads"],
        }
        self.config = PretrainConfig(
            run=Run(url=""),
            data=Data(shards=spec["shards"], workers=spec["workers"]),
            model=Model(**spec["model"]),
            optim=Optim(base_lr=LR * 256 / batch, warmup_epochs=0),
            train=Train(global_batch=batch, micro_batch=micro, steps=10_000, **train_settings),
        )
        self.manifest = Manifest("", 0, (), {}, {}, ())
        layout = make_batch_layout(batch, 1, micro)
        self.schedule = RunSchedule(
            self.config, self.manifest, BatchPlan((100_000,), 0, batch, 1), layout, 10_000
        )
        groups = parameter_groups(model, self.config.optim)
        make = make_unpatched_deepspeed if rung.unpatched else make_engine
        self.engine = make(model.to(device), groups, self.config.train, self.config.optim, layout)

    def step(self, batches: Iterator[MicroBatch]) -> Tensor:
        """Do one step; returns the batch's mean loss."""
        record = train_step(self.engine, batches, self.schedule, self.group, Clock(), SampleFaults(0), 0)
        return record.loss / self.schedule.layout.global_batch

    def stream(self, patches: int, steps: int) -> Any:
        """The stream of the same images from shards."""
        train, model = self.config.train, self.config.model
        return open_stream(
            read_manifest(self.config.data.shards),
            train.global_batch,
            micro_batch=self.schedule.layout.micro,
            image_size=model.image_size,
            patches=patches,
            seed=SEED,
            stop_step=steps,
            data=self.config.data,
        )


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Time, loss and memory of a rung's steps."""
    rung = Rung(**spec["rung"])
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    torch.set_num_threads(spec["threads"] or torch.get_num_threads())
    if rung.zero is not None:
        device = join_ranks(World(), spec["threads"]).device
    torch.compile(lambda x: x + 1)(torch.zeros(2))  # the compiler's own memory is not the step's
    meter = MemoryMeter(device)
    torch.manual_seed(SEED)
    model = Climber(Model(**spec["model"])).on(rung)
    if not gpu:
        choose_cpu_operators(model, "bf16" if rung.precision == "bf16" else "fp32")
    flops = training_flops(model)
    if rung.compiled:
        if rung.removed_only:
            compile_model(model)
        else:  # MAE's loop has other parts
            forward = torch.compile(model.forward, fullgraph=True, dynamic=False)
            model.forward = forward  # type: ignore[method-assign]
    loop: PlainLoop | OwnLoop
    loop = (PlainLoop if rung.zero is None else OwnLoop)(model, rung, spec, device)
    release_freed_memory()
    results: dict[str, Any] = {"flops": flops, "rate": {}}
    if rung.shards and isinstance(loop, OwnLoop):
        with loop.stream(model.patches, spec["warm_up"] + spec["steps"]) as stream:
            results |= run(loop, iter(stream), spec, device, meter)
    else:
        results |= run(loop, passes(rung, spec, model.patches), spec, device, meter)
    for kind in (torch.float32, torch.bfloat16):
        results["rate"][str(kind)] = matrix_rate(device, kind, 0 if gpu else 2048)
    if spec["trace"]:
        trace(loop, passes(rung, spec, model.patches), device, spec["trace"])
    return results


def run(loop: Any, batches: Any, spec: Any, device: torch.device, meter: MemoryMeter) -> dict[str, Any]:
    """Warm up, then time."""
    begun = wait(device)
    losses = [loop.step(batches) for _ in range(spec["warm_up"])]
    first_s = wait(device) - begun
    meter.reset()
    seconds = []
    for _ in range(spec["steps"]):
        begun = wait(device)
        losses.append(loop.step(batches))
        seconds.append(wait(device) - begun)
    return {
        "seconds": seconds,
        "first_s": first_s,
        "peak": meter.peak_bytes(),
        "losses": [float(loss) for loss in losses],
    }


def trace(loop: Any, batches: Any, device: torch.device, path: str) -> None:
    """Write a table of the operators that take the most time of a step."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profiler:
        loop.step(batches)
        wait(device)
    key = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    Path(path).write_text(profiler.key_averages().table(sort_by=key, row_limit=20, max_name_column_width=60))


if __name__ == "__main__":
    spec = json.loads(Path(sys.argv[1]).read_text())
    results = measure(spec)
    Path(sys.argv[2]).write_text(json.dumps(results))
    sys.stdout.flush()
    os._exit(0)  # DeepSpeed takes seconds to exit
