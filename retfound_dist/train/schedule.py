"""The schedule of a run: batch arithmetic, length, learning rates. Pure functions of config and shard set."""

from __future__ import annotations

import math
from dataclasses import dataclass

from retfound_dist.config.schema import PretrainConfig
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.stream.batch_plan import BatchLayout, BatchPlan, make_batch_layout
from retfound_dist.stream.loader import make_plan
from retfound_dist.train.parameter_groups import lr_at, peak_lr


@dataclass(frozen=True)
class RunSchedule:
    """Batches and learning rates of a run at one number of ranks."""

    config: PretrainConfig
    manifest: Manifest
    plan: BatchPlan
    layout: BatchLayout
    steps: int
    """Length of the schedule, in steps."""

    @property
    def last_step(self) -> int:
        """The step after which to stop: the last of the schedule, or `train.stop_at_step`."""
        return min(self.steps, self.config.train.stop_at_step or self.steps)

    def lr(self, step: int) -> float:
        """The learning rate of a step (0 is the first), from the number of samples before it."""
        optim, batch = self.config.optim, self.config.train.global_batch
        warmup, total = optim.warmup_epochs * self.plan.samples, self.steps * batch
        return lr_at(step * batch, total, warmup, peak_lr(optim.base_lr, batch), optim.min_lr)


def run_steps(config: PretrainConfig, plan: BatchPlan) -> int:
    """Length of a run's schedule in steps."""
    length = config.train.epochs * plan.samples / config.train.global_batch
    # Rounding can put the quotient just above a whole number. That must not add a step.
    return config.train.steps or max(1, math.ceil(length - 1e-9))


def make_schedule(
    config: PretrainConfig, manifest: Manifest, world_size: int, micro_batch: int
) -> RunSchedule:
    """Batch arithmetic and length of a run."""
    plan = make_plan(manifest, config.data, config.train.global_batch, config.train.seed)
    layout = make_batch_layout(config.train.global_batch, world_size, micro_batch)
    return RunSchedule(config, manifest, plan, layout, run_steps(config, plan))
