"""Memory of one GPU in pretraining, from shapes and ZeRO stage: closed forms, no torch, no device.

    peak(model, ranks=8, zero_stage=1, micro_batch=64).total

State follows Rajbhandari et al., *ZeRO: Memory Optimizations Toward Training Trillion Parameter Models*,
SC 2020, section 3.1, with gradients accumulated in fp32 as `train/engine/` sets it. Activations follow
Korthikanti et al., *Reducing Activation Recomputation in Large Transformer Models*, MLSys 2023, section
4.1, without dropout masks and with attention that keeps no n x n matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from retfound_dist.config.schema import Model
from retfound_dist.estimate.forecast import BUCKET, WHOLE_BUCKET
from retfound_dist.estimate.model_shapes import encoder_shape, parameters, tokens

Precision = Literal["bf16", "fp32"]

BLOCK_ELEMENTS = 16
"""Elements a block keeps for each token and channel: its two norms' inputs and outputs (4), queries, keys
and values (3), attention's output (1), the perceptron's inner layer before and after GELU (8)."""
RECOMPUTED = 1.8
"""A block that is computed again, and most of its gradients, over what it keeps. Measured."""
STATISTICS_BYTES = 16
"""For each token of a block: two norms' means and spreads in fp32."""
CONTEXT = 1.2e9
"""Bytes outside PyTorch's pool: the CUDA context, cuBLAS's workspaces, NCCL's buffers."""
FRAGMENTS = 1.05
"""PyTorch's pool over what is in use."""
CPU_CONTEXT = 0.07e9
"""The same of a process without a GPU: workspaces of matrix kernels, kept small blocks. Measured."""
CPU_RECOMPUTED = 3.0
"""`RECOMPUTED` of a process without a GPU: blocks of many sizes break the C library's heap up. Measured."""
CPU_REUSED = 0.5
"""Share of the activations' place that a process without a GPU gives to gradients later. Measured."""


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device at the fullest moment of a step."""

    weights: float
    """In the working precision."""
    gradients: float
    """fp32 sums that are there while activations are."""
    optimizer: float
    """AdamW's two moments and the fp32 weights they move."""
    activations: float
    """Kept by the forward pass of one micro-batch for its backward pass."""
    buffers: float
    """Gradients laid out to be sent and to be applied, and at ZeRO 3 the other ranks' weights, as far as
    they are there with the activations or outgrow them when those are gone."""
    context: float = CONTEXT
    fragments: float = FRAGMENTS

    @property
    def state(self) -> float:
        """What stays between passes."""
        return self.weights + self.gradients + self.optimizer

    @property
    def tensors(self) -> float:
        """What PyTorch's allocator has given out at the peak."""
        return self.state + self.activations + self.buffers

    @property
    def total(self) -> float:
        """What the device must have."""
        return self.context + self.fragments * self.tensors


def peak(
    model: Model,
    *,
    ranks: int,
    zero_stage: int,
    micro_batch: int,
    precision: Precision = "bf16",
    activation_checkpointing: bool = False,
    offload_optimizer: bool = False,
    gpu: bool = True,
    passes: int = 1,
) -> DeviceMemory:
    """Predicted memory of each of `ranks` devices, with a step of so many passes.

    On GPUs a bucket fills while another is sent, and PyTorch's pool gives the place of activations that have
    gone to whatever comes next. A process without one (`gpu=False`) keeps it for blocks of their size.
    """
    count = parameters(model)
    weights, gradients, optimizer = state_bytes(count, ranks, zero_stage, precision, offload_optimizer)
    kept = micro_batch * activation_bytes(model, precision, activation_checkpointing, gpu)
    if ranks == 1 and zero_stage < 3 and not (gpu or offload_optimizer):
        return _alone(count, precision, kept, passes)
    first, last = _around(count, ranks, zero_stage, precision, 2 if gpu else 1)
    if gpu:
        return DeviceMemory(weights, gradients, optimizer, kept, max(kept + first, last) - kept)
    if precision == "fp32" and zero_stage < 3 and not activation_checkpointing:
        last -= min(4 * count, CPU_REUSED * kept)
    return DeviceMemory(weights, gradients, optimizer, kept, last, CPU_CONTEXT, 1.0)


def _alone(count: int, precision: Precision, kept: float, passes: int) -> DeviceMemory:
    """One rank on a CPU (`train/engine/single_rank.py`): no copy of a gradient, in fp32 none of the weights.

    Gradients of a single pass stay as they are, several passes add up in fp32; the C library's heap seldom
    has room for one where activations were.
    """
    element = element_bytes(precision)
    optimizer = (8 if precision == "fp32" else 12) * count
    gradients = (4 if passes > 1 else element) * count
    return DeviceMemory(element * count, gradients, optimizer, kept, 0, CPU_CONTEXT)


def _around(
    count: int, ranks: int, zero_stage: int, precision: Precision, buckets: int
) -> tuple[float, float]:
    """Bytes beside the activations as the backward pass begins, and instead of them as the weights move.

    DeepSpeed 0.19 as `train/engine/` sets it. bf16 at ZeRO 0 and 1: the fp32 gradients are copied to be
    sent. Else a bucket in the working precision gathers them; at the end they lie side by side in it and in
    fp32. ZeRO 3: the weights of all ranks are there; gradients are sent from an fp32 copy and its clone.
    """
    element = element_bytes(precision)
    if zero_stage == 3:
        first = 4 * BUCKET + (element * count if ranks > 1 else 0)
        return first, first + 2 * 4 * min(BUCKET, count)
    if precision == "bf16" and zero_stage < 2:
        return 0, 4 * min(WHOLE_BUCKET, count)
    bucket = element * BUCKET * buckets
    own = count / ranks
    return bucket, bucket + (6 * own if precision == "bf16" else 4 * count + 4 * own)


def state_bytes(
    parameter_count: int, ranks: int, zero_stage: int, precision: Precision, offload_optimizer: bool = False
) -> tuple[float, float, float]:
    """Weights, fp32 gradients and AdamW's state on one device in bytes; stage 0 runs as 1.

    In fp32 below ZeRO 3 the gradients are the backward pass's own, which come as the activations go.
    """
    element = element_bytes(precision)
    weights = element / ranks if zero_stage == 3 else element
    gradients = 4.0 if precision == "bf16" and zero_stage < 2 else 4 / ranks
    if precision == "fp32" and zero_stage < 3:
        gradients = 0
    optimizer = 0 if offload_optimizer else 12 / ranks
    return parameter_count * weights, parameter_count * gradients, parameter_count * optimizer


def activation_bytes(
    model: Model, precision: Precision, activation_checkpointing: bool = False, gpu: bool = True
) -> float:
    """Bytes that one image's forward pass keeps for its backward pass.

    With checkpointing each block keeps its input, and one block at a time all that it computes and the
    gradients of that. On a CPU in bf16 there is no flash attention: a block also keeps what it multiplied,
    laid out anew (3), and each head its weights, a number for two tokens.
    """
    shape, count, size = encoder_shape(model.name), tokens(model), element_bytes(precision)
    wide, narrow = count.encoder * shape.width, count.decoder * model.decoder_width
    encoder = _block_bytes(count.encoder, shape.width, shape.heads, size)
    decoder = _block_bytes(count.decoder, model.decoder_width, model.decoder_heads, size)
    if not gpu and precision == "bf16":
        encoder += size * (3 * wide + shape.heads * count.encoder**2)
        decoder += size * (3 * narrow + model.decoder_heads * count.decoder**2)
    if activation_checkpointing:
        inputs = size * (shape.depth * wide + model.decoder_depth * narrow)
        blocks = inputs + (RECOMPUTED if gpu else CPU_RECOMPUTED) * max(encoder, decoder)
    else:
        blocks = shape.depth * encoder + model.decoder_depth * decoder
    ends = size * (count.kept * count.values + 2 * count.encoder * shape.width)  # patches in, last norm
    ends += size * 2 * count.removed * model.decoder_width  # the decoder's last norm
    loss = 4 * 3 * count.removed * count.values  # prediction, target and their difference in fp32
    return blocks + ends + loss


def _block_bytes(count: int, width: int, heads: int, size: int) -> int:
    """All that one transformer block keeps of one image; attention keeps a sum for each head and token."""
    return size * BLOCK_ELEMENTS * count * width + count * (STATISTICS_BYTES + 4 * heads)


def largest_micro_batch(
    model: Model,
    memory: float,
    *,
    ranks: int,
    zero_stage: int,
    precision: Precision = "bf16",
    activation_checkpointing: bool = False,
    offload_optimizer: bool = False,
    gpu: bool = True,
    most: int = 4096,
) -> int:
    """The most images of a micro-batch, up to `most`, that fit in `memory` bytes; 0: not even one."""

    def fits(micro: int) -> bool:
        return (
            peak(
                model,
                ranks=ranks,
                zero_stage=zero_stage,
                micro_batch=micro,
                precision=precision,
                activation_checkpointing=activation_checkpointing,
                offload_optimizer=offload_optimizer,
                gpu=gpu,
                passes=-(-most // micro),
            ).total
            <= memory
        )

    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def element_bytes(precision: Precision) -> int:
    """Bytes of a weight and of an activation."""
    return 2 if precision == "bf16" else 4
