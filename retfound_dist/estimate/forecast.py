"""How fast a run would be on other hardware, and what failures take from it: pure arithmetic, no torch.

A model, held against two measured ranks by `make bench-scaling`; read its numbers as "not better than".
`ASSUMPTIONS` says what it takes for granted. What DeepSpeed sends follows its code (0.19.8, as
`train/engine/` configures it: gradients reduced in fp32, in buckets of `BUCKET`), not its papers:

- ZeRO 1 all-reduces the whole gradient once a step, after the last backward pass (bf16:
  `BF16_Optimizer`), then gathers the weights.
- ZeRO 2 all-reduces the whole gradient after *every* pass: `use_multi_rank_bucket_allreduce` turns its
  reduce-scatter into an all-reduce. Then it gathers the weights once a step.
- ZeRO 3 reduce-scatters the gradient after every pass. It gathers the weights once a pass and not twice,
  for it keeps them until the backward pass where that comes within `max_reuse_distance`. Tensors of up to
  100,000 elements stay whole on every rank and are gathered once a step.
- ZeRO 2 and 3 send a bucket as soon as it is full, behind the backward pass; the last one nothing hides. A
  ViT-L's gradient is seven buckets. DeepSpeed's own 500 million elements would hold all of it.
- ZeRO 1 in bf16 knows nothing of that setting: it sends `WHOLE_BUCKET` elements at a time, and hides none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ASSUMPTIONS = (
    "Every device reaches the same stated fraction of its peak at any micro-batch, but a pass takes at least "
    "the time the host needs to launch it. No rank is slower than the others.",
    "Collectives are rings: each rank sends (N-1)/N of the bytes for a reduce-scatter or an all-gather, "
    "twice that for an all-reduce, at the slower of its own link inside the node and the node's links to the "
    "others, and waits the latency of every hop of the N-1 (or 2 (N-1)). NCCL's trees have fewer hops.",
    "Gradients are reduced in fp32 (4 bytes), weights gathered in the working precision (bf16: 2 bytes).",
    "ZeRO 0 and 1 communicate while nothing computes. ZeRO 2 and 3 hide the stated share of all buckets but "
    "the last, ZeRO 3 also of all gathers of weights but a pass's first; never more than the passes take.",
    "The optimizer, and DeepSpeed's copying of gradients, move bytes counted from the code at the memory's "
    "full rate; ZeRO 1, 2 and 3 share the optimizer's work between ranks, each rank does all the copying.",
    "Slots without a sample cost what a sample costs and bring nothing.",
    "Every image is fetched in every epoch (a node's cache that holds its shards would save that), spread "
    "evenly over time and nodes, several times where several nodes read parts of one shard.",
    "Nodes fail independently, at a constant rate, and all are needed: the job's mean time between failures "
    "is a node's over the number of nodes. A failure costs the restart, and half an interval done again plus "
    "what was done while the last checkpoint was still being written.",
    "A save stops the run while rank 0, which has most, copies its part to host memory. Writing, upload and "
    "putting the weights together go on behind the steps and slow them down by nothing; a save that finds "
    "the one before unwritten waits for it, and so do all ranks.",
)

GRADIENT_BYTES = 4
"""A gradient's element on the wire: `communication_data_type` is fp32."""
UPDATE_BYTES = 86
"""Memory traffic of torch's plain AdamW for one parameter: its eight operations over fp32 tensors read and
write 80 bytes, the bf16 copy of the weight 6."""
PASS_BYTES = {0: 10, 1: 10, 2: 20, 3: 34}
"""Memory traffic of DeepSpeed's bookkeeping for one parameter and pass in bf16, by stage, on every rank:
adding to the fp32 gradient; or copying into the bucket, to fp32, scaling, laying out for the scatter."""
STEP_BYTES = {0: 32, 1: 32, 2: 0, 3: 0}
"""The same once a step: ZeRO 1 flattens, scales, copies back, measures and clears the whole fp32 gradient."""
BUCKET = 50_000_000
"""Elements that ZeRO 2 and 3 reduce together: `reduce_bucket_size` as `train/engine/` sets it."""
WHOLE_BUCKET = 500_000_000
"""Elements that ZeRO 1 reduces together in bf16: DeepSpeed's `MEMORY_OPT_ALLREDUCE_SIZE`, not a setting."""
PREFETCH = 50_000_000
"""Elements that ZeRO 3 gathers ahead in one go: DeepSpeed's `stage3_prefetch_bucket_size`."""
REUSE = 1_000_000_000
"""ZeRO 3 keeps a weight that is used again within so many elements: `stage3_max_reuse_distance`."""
WHOLE = 100_000
"""Tensors of so many elements are never split by ZeRO 3: `stage3_param_persistence_threshold`."""
PARAMETER_GROUPS = 2
"""With and without weight decay (`train/parameter_groups.py`): each is gathered by itself."""


@dataclass(frozen=True)
class Work:
    """What a step has to do, whatever does it."""

    parameters: int
    """Trained parameters."""
    flops_per_image: float
    """Operations forward and backward for one image."""
    global_batch: int
    """Images a step."""
    small_parameters: int = 0
    """Those in tensors of at most `WHOLE` elements."""
    weight_bytes: int = 2
    """Bytes of a weight in the working precision: 2 for bf16, 4 for fp32."""
    bytes_per_image: float = 0.0
    """Bytes of a stored image with its sidecar."""


@dataclass(frozen=True)
class Shape:
    """How the work is cut: `retfound_dist.stream.batch_plan.layout` gives micro-batch and accumulation."""

    ranks: int
    micro: int
    """Images a rank takes in one pass."""
    accumulation: int
    """Passes a step."""
    stage: int
    """ZeRO stage, 0 to 3."""

    @property
    def slots(self) -> int:
        """Places for images in a step, padding included."""
        return self.ranks * self.micro * self.accumulation


@dataclass(frozen=True)
class Machine:
    """A cluster of equal nodes, one rank a device. Rates are those in reach, not those on the datasheet."""

    flops: float
    """Operations per second that training reaches on one device."""
    memory_rate: float
    """Bytes per second of a device's memory."""
    devices_per_node: int
    inside_rate: float
    """Bytes per second that a device sends to others of its node, one direction."""
    outside_rate: float
    """Bytes per second that a whole node sends to other nodes, one direction."""
    inside_latency: float = 0.0
    """Seconds a hop inside a node."""
    outside_latency: float = 0.0
    """Seconds a hop between nodes."""
    launch: float = 0.0
    """Least seconds of a forward and backward pass: the host launches kernels."""
    store_rate: float = math.inf
    """Bytes per second that a node reads from S3."""
    scatter_by_all_reduce: bool = False
    """gloo has no reduce-scatter: it all-reduces and keeps a part."""

    def nodes(self, ranks: int) -> int:
        """Nodes that so many ranks fill."""
        return -(-ranks // self.devices_per_node)

    def rate(self, ranks: int) -> float:
        """Bytes per second each rank of a ring can send: the ring leaves every node over all its links."""
        return self.inside_rate if self.nodes(ranks) == 1 else min(self.inside_rate, self.outside_rate)

    def lap(self, ranks: int) -> float:
        """Seconds of latency on N-1 hops of the ring, as many of them as can be between nodes."""
        outside = self.nodes(ranks) if self.nodes(ranks) > 1 else 0
        outside = min(outside, ranks - 1)
        return outside * self.outside_latency + (ranks - 1 - outside) * self.inside_latency


@dataclass(frozen=True)
class RankTraffic:
    """What each rank sends in a step."""

    gradient_bytes: float
    weight_bytes: float
    gradient_laps: int
    """How often something goes round the ring: once for a reduce-scatter, twice for an all-reduce."""
    weight_laps: int

    @property
    def bytes(self) -> float:
        """All of it."""
        return self.gradient_bytes + self.weight_bytes


def traffic(
    work: Work, shape: Shape, scatter_by_all_reduce: bool = False, bucket: int = BUCKET
) -> RankTraffic:
    """Bytes each rank sends in a step, and laps, by ZeRO stage (see the top of this file)."""
    passes, stage, share = shape.accumulation, shape.stage, (shape.ranks - 1) / shape.ranks
    halves = 1 if stage == 3 and not scatter_by_all_reduce else 2
    reductions = passes if stage >= 2 else 1
    gradient = reductions * halves * share * GRADIENT_BYTES * work.parameters
    laps = reductions * halves * buckets(work, stage, bucket)
    if stage == 0:
        return RankTraffic(gradient, 0.0, laps, 0)
    if stage < 3:
        gathered, gathers = float(work.parameters), PARAMETER_GROUPS
    else:
        turns = passes * gathers_per_pass(work)
        gathered = turns * (work.parameters - work.small_parameters) + work.small_parameters
        gathers = turns * _calls(work) + 1
    return RankTraffic(gradient, share * work.weight_bytes * gathered, laps, gathers)


def buckets(work: Work, stage: int, bucket: int = BUCKET) -> int:
    """Collectives that reduce one whole gradient; `bucket` counts from stage 2 on."""
    return -(-work.parameters // (bucket if stage >= 2 else WHOLE_BUCKET))


def gathers_per_pass(work: Work) -> int:
    """How often ZeRO 3 gathers a weight in a pass: again for the backward pass only where that is far."""
    return 1 if 2 * work.parameters <= REUSE else 2


def _calls(work: Work) -> int:
    """All-gathers that bring all weights once: the first module's, then what is fetched ahead."""
    return 1 + -(-(work.parameters - work.small_parameters) // PREFETCH)


@dataclass(frozen=True)
class StepTime:
    """A step's times in seconds, and what it comes to."""

    compute_s: float
    """Passes, padding included."""
    update_s: float
    """The optimizer."""
    copying_s: float
    """DeepSpeed's copying of gradients."""
    communication_s: float
    """All of it, hidden or not."""
    exposed_s: float
    """Communication that nothing hides."""
    data_s: float
    """A node's share of the images at its S3 rate; hidden while shorter than the rest."""
    step_s: float
    images_per_s: float
    sent_bytes: float
    """By each rank."""
    store_rate_needed: float
    """Bytes per second that each node reads from S3 at this speed."""
    padding: float
    """Share of the slots that hold no image."""


def forecast(
    work: Work,
    shape: Shape,
    machine: Machine,
    overlap: float = 0.0,
    reread: float = 1.0,
    bucket: int = BUCKET,
) -> StepTime:
    """The time of one step.

    `overlap`: share of what could travel behind the passes that does; `reread`: times an image is fetched
    an epoch, by all nodes together; `bucket`: elements that ZeRO 2 and 3 reduce together.
    """
    compute = shape.accumulation * max(shape.micro * work.flops_per_image / machine.flops, machine.launch)
    owners = shape.ranks if shape.stage else 1
    update = UPDATE_BYTES * work.parameters / owners / machine.memory_rate
    copied = shape.accumulation * PASS_BYTES[shape.stage] + STEP_BYTES[shape.stage]
    copying = copied * work.parameters / machine.memory_rate
    sent = traffic(work, shape, machine.scatter_by_all_reduce, bucket)
    rate, lap = machine.rate(shape.ranks), machine.lap(shape.ranks)
    gradient_s = sent.gradient_bytes / rate + sent.gradient_laps * lap
    weight_s = sent.weight_bytes / rate + sent.weight_laps * lap
    hideable = gradient_s * (1 - 1 / buckets(work, shape.stage, bucket)) if shape.stage >= 2 else 0.0
    hideable += weight_s * (1 - 1 / _calls(work)) if shape.stage == 3 else 0.0
    exposed = gradient_s + weight_s - min(overlap * hideable, compute)
    fetched = work.global_batch * work.bytes_per_image * reread / machine.nodes(shape.ranks)
    data = fetched / machine.store_rate
    step = max(compute + update + copying + exposed, data)
    return StepTime(
        compute_s=compute,
        update_s=update,
        copying_s=copying,
        communication_s=gradient_s + weight_s,
        exposed_s=exposed,
        data_s=data,
        step_s=step,
        images_per_s=work.global_batch / step,
        sent_bytes=sent.bytes,
        store_rate_needed=fetched / step,
        padding=1 - work.global_batch / shape.slots,
    )


def efficiency(one: StepTime, many: StepTime, ranks: int) -> float:
    """Images per second and rank, over those of one rank alone: 1 is perfect."""
    return many.images_per_s / (ranks * one.images_per_s)


# ---------------------------------------------------------------- checkpoints and failures


@dataclass(frozen=True)
class Save:
    """What one checkpoint takes; bytes and seconds."""

    bytes: float
    """Rank 0's part of the state, the largest: the weights in the working precision, its share of AdamW's."""
    stall_s: float
    """Until its part is in host memory: training stands still so long, when the save before is committed."""
    behind_s: float
    """Until all is written and committed, while the run goes on."""


def save(work: Work, shape: Shape, host_rate: float, write_rate: float) -> Save:
    """A checkpoint at ZeRO 1 or 2.

    `host_rate`: bytes per second from a device to host memory; `write_rate`: bytes per second that rank 0
    writes, hashes and uploads, or fetches. Behind the run it writes its part and its share of the fp32
    weights, then fetches all shares of those and writes them whole.
    """
    part = (work.weight_bytes + 12 / shape.ranks) * work.parameters
    weights = 4 * work.parameters
    return Save(part, part / host_rate, (part + weights / shape.ranks + 2 * weights) / write_rate)


@dataclass(frozen=True)
class FailureRate:
    """How often a run is stopped, and what that costs; seconds."""

    node_mtbf_s: float
    """Mean time between failures of one node."""
    nodes: int
    stall_s: float
    """The run stands still for so long at each checkpoint."""
    restart_s: float
    """From a failure to the first step: noticed, queued again, state read."""
    behind_s: float = 0.0
    """From there until the checkpoint is committed, while the run goes on."""

    @property
    def mtbf_s(self) -> float:
        """Of the job: any node's failure stops it."""
        return self.node_mtbf_s / self.nodes

    def stall(self, interval_s: float) -> float:
        """Seconds the run stands still at a save so much work after the one before, whose rest it awaits."""
        return self.stall_s + max(0.0, self.behind_s - interval_s)


def best_interval(failures: FailureRate) -> float:
    """Seconds of work between checkpoints that lose least: sqrt(2 x stall x MTBF), not below `behind_s`.

    To first order: Young, *A first order approximation to the optimum checkpoint interval*, CACM 17 (1974)
    530; Daly, Future Generation Computer Systems 22 (2006) 303. Good while all is far below the MTBF.
    """
    return max(failures.behind_s, math.sqrt(2 * failures.stall_s * failures.mtbf_s))


def goodput(interval_s: float, failures: FailureRate) -> float:
    """Share of the wall clock that is work which is kept, with a checkpoint every `interval_s` of work.

    A wall clock T holds T / MTBF failures, each costing the restart, half an interval, and the work done
    while the last checkpoint was not committed yet; the rest is work and stalls. 0 where that leaves
    nothing: such a run does not advance.
    """
    again = interval_s / 2 + min(failures.behind_s, interval_s)
    lost = (failures.restart_s + again) / failures.mtbf_s
    return max(0.0, 1 - lost) / (1 + failures.stall(interval_s) / interval_s)
