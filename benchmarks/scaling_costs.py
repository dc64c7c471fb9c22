"""What scaling costs beside the step: efficiency, checkpoints and failures. Pure arithmetic, no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from retfound_dist.plan.forecast import Shape, StepTime, Work

ASSUMPTIONS = (
    "Nodes fail independently, at a constant rate, and all are needed: the job's mean time between failures "
    "is a node's over the number of nodes. A failure costs the restart, and half an interval done again plus "
    "what was done while the last checkpoint was still being written.",
    "A save stops the run while rank 0, which has most, copies its part to host memory. Writing, upload and "
    "putting the weights together go on behind the steps and slow them down by nothing; a save that finds "
    "the one before unwritten waits for it, and so do all ranks.",
)


def efficiency(one: StepTime, many: StepTime, ranks: int) -> float:
    """Images per second and rank, divided by those of one rank alone; 1 is perfect."""
    return many.images_per_s / (ranks * one.images_per_s)


@dataclass(frozen=True)
class CheckpointCost:
    """Bytes and seconds of one checkpoint."""

    bytes: float
    """The largest part of the state, rank 0's: the weights in the working precision and its share of
    AdamW's."""
    stall_s: float
    """Seconds that training stops, until the part is in host memory, when the save before is committed."""
    behind_s: float
    """Seconds until everything is written and committed, while training goes on."""


def checkpoint_cost(work: Work, shape: Shape, host_rate: float, write_rate: float) -> CheckpointCost:
    """Predict a checkpoint at ZeRO 1 or 2.

    `host_rate`: bytes per second from a device to host memory; `write_rate`: bytes per second that rank 0
    writes, hashes and uploads, or fetches. While training goes on, rank 0 writes its part and its share of
    the fp32 weights, then fetches all shares and writes the whole weights.
    """
    # 12 bytes a parameter: AdamW's two moments and the fp32 weights, shared between the ranks.
    part = (work.weight_bytes + 12 / shape.ranks) * work.parameters
    weights = 4 * work.parameters
    return CheckpointCost(part, part / host_rate, (part + weights / shape.ranks + 2 * weights) / write_rate)


@dataclass(frozen=True)
class FailureRate:
    """How often a run fails, and what a failure costs, in seconds."""

    node_mtbf_s: float
    """Mean time between failures of one node."""
    nodes: int
    stall_s: float
    """Seconds that training stops at each checkpoint."""
    restart_s: float
    """From a failure to the first step: until it is noticed, queued again and the state is read."""
    behind_s: float = 0.0
    """From the stall until the checkpoint is committed, while training goes on."""

    @property
    def mtbf_s(self) -> float:
        """Mean time between failures of the job, which any node's failure stops."""
        return self.node_mtbf_s / self.nodes

    def stall(self, interval_s: float) -> float:
        """Seconds that training stops at a save, `interval_s` of work after the one before.

        The save waits until the one before is committed.
        """
        return self.stall_s + max(0.0, self.behind_s - interval_s)


def best_interval(failures: FailureRate) -> float:
    """Seconds of work between checkpoints that lose the least time: sqrt(2 x stall x MTBF), at least
    `behind_s`.

    To first order, from Young, *A first order approximation to the optimum checkpoint interval*, CACM 17
    (1974) 530; Daly, Future Generation Computer Systems 22 (2006) 303. Valid while all times are far below
    the MTBF.
    """
    return max(failures.behind_s, math.sqrt(2 * failures.stall_s * failures.mtbf_s))


def goodput(interval_s: float, failures: FailureRate) -> float:
    """Share of the wall-clock time that is lasting work, with a checkpoint every `interval_s` of work.

    A wall-clock time T holds T / MTBF failures. Each costs the restart, half an interval, and the work done
    before the last checkpoint was committed. The rest is work and stalls. 0 where nothing is left: such a run
    does not advance.
    """
    # Saves follow each other, so at most one interval lies between a failure and the last committed save.
    redone = interval_s / 2 + min(failures.behind_s, interval_s)
    lost = (failures.restart_s + redone) / failures.mtbf_s
    return max(0.0, 1 - lost) / (1 + failures.stall(interval_s) / interval_s)
