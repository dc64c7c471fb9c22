"""Predicts the step time of a run on other hardware. Pure arithmetic, no torch.

`make bench-scaling` compares the model with two measured ranks. Read its numbers as "not better than".
`ASSUMPTIONS` lists what it assumes. Its traffic follows DeepSpeed's code (0.19.8, as `train/engine/`
configures it: gradients reduced in fp32, in buckets of `BUCKET`), not the papers:

- ZeRO 1 all-reduces the whole gradient once a step, after the last backward pass (bf16: `BF16_Optimizer`).
  Then it gathers the weights.
- ZeRO 2 all-reduces the whole gradient after *every* pass: `use_multi_rank_bucket_allreduce` turns its
  reduce-scatter into an all-reduce. Then it gathers the weights once a step.
- ZeRO 3 reduce-scatters the gradient after every pass. It gathers the weights once a pass and not twice,
  because it keeps them until the backward pass where that comes within `max_reuse_distance`. Tensors of up
  to 100,000 elements stay whole on every rank and are gathered once a step.
- ZeRO 2 and 3 send a bucket as soon as it is full, during the backward pass. Nothing hides the last bucket.
  A ViT-L's gradient is seven buckets. DeepSpeed's default of 500 million elements would make it one.
- ZeRO 1 in bf16 ignores that setting: it sends `WHOLE_BUCKET` elements at a time, and hides none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from retfound_dist.estimate.gpu_memory import BUCKET, WHOLE_BUCKET

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
PREFETCH_BUCKET = 50_000_000
"""Elements that ZeRO 3 gathers ahead in one go: DeepSpeed's `stage3_prefetch_bucket_size`."""
REUSE_DISTANCE = 1_000_000_000
"""ZeRO 3 keeps a weight that is used again within so many elements: `stage3_max_reuse_distance`."""
PERSISTENCE_THRESHOLD = 100_000
"""Tensors of so many elements are never split by ZeRO 3: `stage3_param_persistence_threshold`."""
PARAMETER_GROUPS = 2
"""With and without weight decay (`train/parameter_groups.py`): each is gathered by itself."""


@dataclass(frozen=True)
class Work:
    """The work of one step, on whatever hardware."""

    parameters: int
    """Trained parameters."""
    flops_per_image: float
    """Floating-point operations for one image, forward and backward."""
    global_batch: int
    """Images a step."""
    small_parameters: int = 0
    """Parameters in tensors of at most `PERSISTENCE_THRESHOLD` elements."""
    weight_bytes: int = 2
    """Bytes of a weight in the working precision: 2 for bf16, 4 for fp32."""
    bytes_per_image: float = 0.0
    """Bytes of a stored image with its sidecar."""


@dataclass(frozen=True)
class Shape:
    """How ranks share the work; `retfound_dist.stream.batch_plan.make_batch_layout` gives micro-batch and
    accumulation."""

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
    """A cluster of equal nodes, one rank a device. Rates are those that are reached, not the datasheet's."""

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
    """Least seconds of a forward and backward pass, in which the host launches kernels."""
    store_rate: float = math.inf
    """Bytes per second that a node reads from S3."""
    scatter_by_all_reduce: bool = False
    """Whether a reduce-scatter is an all-reduce of which a part is kept: gloo has no other."""

    def nodes(self, ranks: int) -> int:
        """Number of nodes for `ranks` ranks."""
        return -(-ranks // self.devices_per_node)

    def rate(self, ranks: int) -> float:
        """Bytes per second that each rank of a ring can send."""
        # A ring crosses the border of a node once in each direction, so it has all the links of the node to
        # itself: the outside rate is not divided by the node's devices.
        return self.inside_rate if self.nodes(ranks) == 1 else min(self.inside_rate, self.outside_rate)

    def round_latency(self, ranks: int) -> float:
        """Seconds of latency on the N-1 hops of the ring."""
        # A ring through n nodes has n hops between nodes. Of its N hops N-1 count; the one left out is taken
        # to lie inside a node.
        outside = self.nodes(ranks) if self.nodes(ranks) > 1 else 0
        outside = min(outside, ranks - 1)
        return outside * self.outside_latency + (ranks - 1 - outside) * self.inside_latency


@dataclass(frozen=True)
class RankTraffic:
    """Traffic that each rank sends in a step."""

    gradient_bytes: float
    weight_bytes: float
    gradient_rounds: int
    """Number of times that data go round the ring: once for a reduce-scatter, twice for an all-reduce."""
    weight_rounds: int

    @property
    def bytes(self) -> float:
        """Bytes of gradients and weights together."""
        return self.gradient_bytes + self.weight_bytes


def traffic(
    work: Work, shape: Shape, scatter_by_all_reduce: bool = False, bucket: int = BUCKET
) -> RankTraffic:
    """Bytes each rank sends in a step, and laps, by ZeRO stage (see the top of this file)."""
    passes, stage, share = shape.accumulation, shape.stage, (shape.ranks - 1) / shape.ranks
    # An all-reduce is a reduce-scatter and an all-gather: two halves.
    halves = 1 if stage == 3 and not scatter_by_all_reduce else 2
    reductions = passes if stage >= 2 else 1
    gradient = reductions * halves * share * GRADIENT_BYTES * work.parameters
    laps = reductions * halves * buckets(work, stage, bucket)
    # Stage 0 keeps whole weights on every rank and gathers none.
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
    """Number of times that ZeRO 3 gathers a weight in a pass: 1, or 2 where the backward pass is too far
    away."""
    # The first layer waits longest: forward and backward through the whole model lie between its two uses.
    return 1 if 2 * work.parameters <= REUSE_DISTANCE else 2


def _calls(work: Work) -> int:
    """Number of all-gathers for all weights: one for the first module, then the prefetched ones."""
    return 1 + -(-(work.parameters - work.small_parameters) // PREFETCH_BUCKET)


@dataclass(frozen=True)
class StepTime:
    """Predicted times of a step in seconds, and the rates that follow."""

    compute_s: float
    """All passes, padding included."""
    update_s: float
    """The optimizer."""
    copying_s: float
    """DeepSpeed's copying of gradients."""
    communication_s: float
    """All communication, hidden or not."""
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
    """Share of the slots without an image."""


def forecast(
    work: Work,
    shape: Shape,
    machine: Machine,
    overlap: float = 0.0,
    reread: float = 1.0,
    bucket: int = BUCKET,
) -> StepTime:
    """Predict the time of one step.

    `overlap`: share of the traffic that could be hidden behind the passes and is; `reread`: number of times
    that all nodes together fetch an image in an epoch; `bucket`: elements that ZeRO 2 and 3 reduce together.
    """
    compute = shape.accumulation * max(shape.micro * work.flops_per_image / machine.flops, machine.launch)
    owners = shape.ranks if shape.stage else 1
    update = UPDATE_BYTES * work.parameters / owners / machine.memory_rate
    copied = shape.accumulation * PASS_BYTES[shape.stage] + STEP_BYTES[shape.stage]
    copying = copied * work.parameters / machine.memory_rate
    sent = traffic(work, shape, machine.scatter_by_all_reduce, bucket)
    rate, round_latency = machine.rate(shape.ranks), machine.round_latency(shape.ranks)
    gradient_s = sent.gradient_bytes / rate + sent.gradient_rounds * round_latency
    weight_s = sent.weight_bytes / rate + sent.weight_rounds * round_latency
    # Only from stage 2 on does DeepSpeed send while the backward pass runs. The last bucket fills when it
    # ends.
    hideable = gradient_s * (1 - 1 / buckets(work, shape.stage, bucket)) if shape.stage >= 2 else 0.0
    hideable += weight_s * (1 - 1 / _calls(work)) if shape.stage == 3 else 0.0
    # Traffic hides behind passes, so no more of it than they take.
    exposed = gradient_s + weight_s - min(overlap * hideable, compute)
    fetched = work.global_batch * work.bytes_per_image * reread / machine.nodes(shape.ranks)
    data = fetched / machine.store_rate
    # Fetching runs in processes of its own, so it adds nothing until it is the slowest part.
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
