"""Predicts the step time of a run on other hardware. Pure arithmetic, no torch.

The times are a lower bound. `make bench-scaling` compares them with two measured ranks, and `ASSUMPTIONS`
lists the assumptions. The traffic follows DeepSpeed's code (0.19.8, as `train/engine/` configures it:
gradients reduced in fp32, in buckets of `BUCKET`), not the papers:

- ZeRO 1 all-reduces the whole gradient once a step, after the last backward pass (bf16: `BF16_Optimizer`).
  Then it gathers the weights.
- ZeRO 2 all-reduces the whole gradient after *every* pass: `use_multi_rank_bucket_allreduce` turns its
  reduce-scatter into an all-reduce. Then it gathers the weights once a step.
- ZeRO 3 reduce-scatters the gradient after every pass. It gathers the weights once a pass and not twice,
  because it keeps them until the backward pass if that comes within `max_reuse_distance`. Tensors of up
  to 100,000 elements stay whole on every rank and are gathered once a step.
- ZeRO 2 and 3 send a bucket as soon as it is full, during the backward pass, and the last one after it.
  A ViT-L's gradient has seven buckets. With DeepSpeed's default of 500 million elements it would have one.
- ZeRO 1 in bf16 ignores that setting. It sends `WHOLE_BUCKET` elements at a time, after the backward pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from retfound_dist.estimate.gpu_memory import BUCKET, WHOLE_BUCKET

ASSUMPTIONS = (
    "Every device reaches the same share of its peak rate at any micro-batch. A pass takes at least the time "
    "that the host needs to launch it. No rank is slower than the others.",
    "Collectives are rings. Each rank sends (N-1)/N of the bytes for a reduce-scatter or an all-gather, and "
    "twice as much for an all-reduce. The rate is the lower one of the link inside the node and the links "
    "between nodes. Each of the N-1 (or 2 (N-1)) hops adds its latency. NCCL's trees have fewer hops.",
    "Gradients are reduced in fp32 (4 bytes). Weights are gathered in the working precision (bf16: 2 bytes).",
    "ZeRO 0 and 1 communicate while nothing is computed. ZeRO 2 and 3 overlap the assumed share of all "
    "buckets except the last one with the passes. ZeRO 3 also overlaps all gathers of weights except the "
    "first one of a pass. The overlap is never longer than the passes.",
    "The optimizer and DeepSpeed's copies of gradients move memory at the full rate; their bytes are counted "
    "from the code. ZeRO 1, 2 and 3 divide the optimizer's work between ranks. Each rank makes all copies.",
    "Padding takes as much time as samples.",
    "Every image is fetched in every epoch, and several times if several nodes read parts of one shard. A "
    "node's cache of its shards would save this. Fetches are spread evenly over time and nodes.",
)

GRADIENT_BYTES = 4
"""Bytes of a gradient's element that is sent: `communication_data_type` is fp32."""
UPDATE_BYTES = 86
"""Bytes that torch's plain AdamW reads and writes for one parameter: 80 in its eight operations over fp32
tensors, and 6 for the bf16 copy of the weight."""
PASS_BYTES = {0: 10, 1: 10, 2: 20, 3: 34}
"""Bytes that DeepSpeed reads and writes for one parameter in one bf16 pass, by stage, on every rank. Stages 0
and 1 add to the fp32 gradient. Stages 2 and 3 copy it into the bucket and to fp32, and scale it; stage 3 also
arranges it for the reduce-scatter."""
STEP_BYTES = {0: 32, 1: 32, 2: 0, 3: 0}
"""The same once a step: ZeRO 0 and 1 flatten the whole fp32 gradient, scale it, copy it back, compute its
norm and clear it."""
PREFETCH_BUCKET = 50_000_000
"""Elements that ZeRO 3 gathers ahead at once: DeepSpeed's `stage3_prefetch_bucket_size`."""
REUSE_DISTANCE = 1_000_000_000
"""ZeRO 3 keeps a weight that is used again within this number of elements: `stage3_max_reuse_distance`."""
PERSISTENCE_THRESHOLD = 100_000
"""ZeRO 3 never splits tensors of at most this number of elements: `stage3_param_persistence_threshold`."""
PARAMETER_GROUPS = 2
"""With and without weight decay (`train/parameter_groups.py`). Each group is gathered separately."""


@dataclass(frozen=True)
class Work:
    """The work of one step, independent of the hardware."""

    parameters: int
    """Trained parameters."""
    flops_per_image: float
    """Floating-point operations for one image, forward and backward."""
    global_batch: int
    """Images in one step."""
    small_parameters: int = 0
    """Parameters in tensors of at most `PERSISTENCE_THRESHOLD` elements."""
    weight_bytes: int = 2
    """Bytes of a weight in the working precision: 2 for bf16, 4 for fp32."""
    bytes_per_image: float = 0.0
    """Bytes of a stored image with its sidecar."""


@dataclass(frozen=True)
class Shape:
    """The division of the work between ranks. `retfound_dist.stream.batch_plan.make_batch_layout` computes
    micro-batch and accumulation."""

    ranks: int
    micro: int
    """Images of a rank in one pass."""
    accumulation: int
    """Passes in one step."""
    stage: int
    """ZeRO stage, 0 to 3."""

    @property
    def slots(self) -> int:
        """Places for images in a step, padding included."""
        return self.ranks * self.micro * self.accumulation


@dataclass(frozen=True)
class Machine:
    """Equal nodes with one rank per device. Rates are those that training reaches, not the datasheet's."""

    flops: float
    """Operations per second that training reaches on one device."""
    memory_rate: float
    """Bytes per second of a device's memory."""
    devices_per_node: int
    inside_rate: float
    """Bytes per second from a device to others of its node, in one direction."""
    outside_rate: float
    """Bytes per second from a whole node to other nodes, in one direction."""
    inside_latency: float = 0.0
    """Seconds per hop inside a node."""
    outside_latency: float = 0.0
    """Seconds per hop between nodes."""
    launch: float = 0.0
    """Shortest time of a forward and backward pass in seconds: the host launches its kernels."""
    store_rate: float = math.inf
    """Bytes per second that a node reads from S3."""
    scatter_by_all_reduce: bool = False
    """Whether a reduce-scatter runs as an all-reduce of which a part is kept, as in gloo."""

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
        # A ring of N ranks through n nodes has N hops, n of them between nodes. Only N-1 count; the other one
        # is assumed to be inside a node.
        node_hops = self.nodes(ranks) if self.nodes(ranks) > 1 else 0
        node_hops = min(node_hops, ranks - 1)
        return node_hops * self.outside_latency + (ranks - 1 - node_hops) * self.inside_latency


@dataclass(frozen=True)
class RankTraffic:
    """Traffic that each rank sends in a step."""

    gradient_bytes: float
    weight_bytes: float
    gradient_rounds: int
    """Number of rounds of the ring: one for a reduce-scatter, two for an all-reduce."""
    weight_rounds: int

    @property
    def bytes(self) -> float:
        """Bytes of gradients and weights together."""
        return self.gradient_bytes + self.weight_bytes


def traffic(
    work: Work, shape: Shape, scatter_by_all_reduce: bool = False, bucket: int = BUCKET
) -> RankTraffic:
    """Bytes that each rank sends in a step, and rounds, by ZeRO stage (see the top of this file)."""
    passes, stage, sent_share = shape.accumulation, shape.stage, (shape.ranks - 1) / shape.ranks
    # An all-reduce is a reduce-scatter and an all-gather, so it takes two rounds.
    rounds = 1 if stage == 3 and not scatter_by_all_reduce else 2
    reductions = passes if stage >= 2 else 1
    gradient_bytes = reductions * rounds * sent_share * GRADIENT_BYTES * work.parameters
    gradient_rounds = reductions * rounds * buckets(work, stage, bucket)
    # Stage 0 keeps whole weights on every rank and gathers none.
    if stage == 0:
        return RankTraffic(gradient_bytes, 0.0, gradient_rounds, 0)
    if stage < 3:
        gathered_elements, weight_rounds = float(work.parameters), PARAMETER_GROUPS
    else:
        gathers = passes * gathers_per_pass(work)
        gathered_elements = gathers * (work.parameters - work.small_parameters) + work.small_parameters
        weight_rounds = gathers * _gather_calls(work) + 1
    weight_bytes = sent_share * work.weight_bytes * gathered_elements
    return RankTraffic(gradient_bytes, weight_bytes, gradient_rounds, weight_rounds)


def buckets(work: Work, stage: int, bucket: int = BUCKET) -> int:
    """Number of collectives that reduce one whole gradient. `bucket` is used from stage 2 on."""
    return -(-work.parameters // (bucket if stage >= 2 else WHOLE_BUCKET))


def gathers_per_pass(work: Work) -> int:
    """Number of times that ZeRO 3 gathers a weight in a pass: 1, or 2 if the backward pass is too far."""
    # The first layer decides: between its two uses are the forward and backward passes of the whole model.
    return 1 if 2 * work.parameters <= REUSE_DISTANCE else 2


def _gather_calls(work: Work) -> int:
    """Number of all-gathers for all weights: one for the first module, then the prefetched ones."""
    return 1 + -(-(work.parameters - work.small_parameters) // PREFETCH_BUCKET)


@dataclass(frozen=True)
class StepTime:
    """Predicted times of a step in seconds, and the resulting rates."""

    compute_s: float
    """All passes, padding included."""
    update_s: float
    """The optimizer."""
    copying_s: float
    """DeepSpeed's copying of gradients."""
    communication_s: float
    """All communication, also the part that overlaps with the passes."""
    exposed_s: float
    """Communication that does not overlap with the passes."""
    data_s: float
    """Time to fetch a node's share of the images from S3. It counts only if it is longer than the rest."""
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
    copies: float = 1.0,
    bucket: int = BUCKET,
) -> StepTime:
    """Predict the time of one step.

    `overlap`: share of the traffic that overlaps with the passes, of all that can; `copies`: number of times
    that all nodes together fetch an image in an epoch; `bucket`: elements that ZeRO 2 and 3 reduce together.
    """
    compute_s = shape.accumulation * max(shape.micro * work.flops_per_image / machine.flops, machine.launch)
    optimizer_ranks = shape.ranks if shape.stage else 1
    update_s = UPDATE_BYTES * work.parameters / optimizer_ranks / machine.memory_rate
    copied_bytes = shape.accumulation * PASS_BYTES[shape.stage] + STEP_BYTES[shape.stage]
    copying_s = copied_bytes * work.parameters / machine.memory_rate
    sent = traffic(work, shape, machine.scatter_by_all_reduce, bucket)
    rate, round_latency = machine.rate(shape.ranks), machine.round_latency(shape.ranks)
    gradient_s = sent.gradient_bytes / rate + sent.gradient_rounds * round_latency
    weight_s = sent.weight_bytes / rate + sent.weight_rounds * round_latency
    # DeepSpeed sends during the backward pass only from stage 2 on. The last bucket fills at its end.
    hideable_s = gradient_s * (1 - 1 / buckets(work, shape.stage, bucket)) if shape.stage >= 2 else 0.0
    hideable_s += weight_s * (1 - 1 / _gather_calls(work)) if shape.stage == 3 else 0.0
    # The overlap cannot be longer than the passes.
    exposed_s = gradient_s + weight_s - min(overlap * hideable_s, compute_s)
    fetched_bytes = work.global_batch * work.bytes_per_image * copies / machine.nodes(shape.ranks)
    data_s = fetched_bytes / machine.store_rate
    # Other processes fetch, so fetching adds nothing until it is the slowest part.
    step_s = max(compute_s + update_s + copying_s + exposed_s, data_s)
    return StepTime(
        compute_s=compute_s,
        update_s=update_s,
        copying_s=copying_s,
        communication_s=gradient_s + weight_s,
        exposed_s=exposed_s,
        data_s=data_s,
        step_s=step_s,
        images_per_s=work.global_batch / step_s,
        sent_bytes=sent.bytes,
        store_rate_needed=fetched_bytes / step_s,
        padding=1 - work.global_batch / shape.slots,
    )
