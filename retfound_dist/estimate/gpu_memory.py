"""Predicts the memory of one GPU in pretraining, from shapes and ZeRO stage. Needs no torch and no device.

    peak_memory(model, ranks=8, zero_stage=1, micro_batch=64).total

State follows Rajbhandari et al., *ZeRO: Memory Optimizations Toward Training Trillion Parameter Models*,
SC 2020, section 3.1, with gradients accumulated in fp32 as `train/engine/` sets it. Activations follow
Korthikanti et al., *Reducing Activation Recomputation in Large Transformer Models*, MLSys 2023, section
4.1, without dropout masks and with attention that keeps no n x n matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from retfound_dist.config.schema import Model
from retfound_dist.estimate.model_shapes import encoder_shape, parameter_count, token_counts

Precision = Literal["bf16", "fp32"]

BUCKET = 50_000_000
"""Elements that ZeRO 2 and 3 reduce together: `reduce_bucket_size` as `train/engine/` sets it."""
WHOLE_BUCKET = 500_000_000
"""Elements that ZeRO 1 reduces together in bf16: DeepSpeed's `MEMORY_OPT_ALLREDUCE_SIZE`, not a setting."""

BLOCK_ELEMENTS = 16
"""Elements that a block keeps for each token and channel: its two norms' inputs and outputs (4), queries,
keys and values (3), attention's output (1), the perceptron's inner layer before and after GELU (8)."""
# Factors marked as measured cannot be derived: they depend on the allocators of PyTorch and of the C library.
RECOMPUTED_FACTOR = 1.8
"""Memory of a block that is computed again, with most of its gradients, over what it keeps. Measured."""
STATISTICS_BYTES = 16
"""For each token of a block: two norms' means and spreads in fp32."""
CONTEXT_BYTES = 1.2e9
"""Bytes outside PyTorch's pool: the CUDA context, cuBLAS's workspaces, NCCL's buffers."""
FRAGMENTATION = 1.05
"""Size of PyTorch's pool over the bytes in use."""
CPU_CONTEXT_BYTES = 0.07e9
"""`CONTEXT_BYTES` of a process without a GPU: workspaces of matrix kernels, small blocks that stay
allocated. Measured."""
CPU_RECOMPUTED_FACTOR = 3.0
"""`RECOMPUTED_FACTOR` of a process without a GPU. Blocks of many sizes fragment the C library's heap.
Measured."""
CPU_REUSED = 0.5
"""Share of the activations' memory that a process without a GPU reuses for gradients. Measured."""


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device at the peak of a step."""

    weights: float
    """In the working precision."""
    gradients: float
    """fp32 sums that exist at the same time as activations."""
    optimizer: float
    """AdamW's two moments and fp32 weights."""
    activations: float
    """Tensors that the forward pass of one micro-batch keeps for its backward pass."""
    buffers: float
    """Copies of gradients that are sent and applied, and at ZeRO 3 the other ranks' weights. Counted as far
    as they exist beside the activations, or are larger than these once they are freed."""
    context: float = CONTEXT_BYTES
    fragments: float = FRAGMENTATION

    @property
    def state(self) -> float:
        """Bytes that stay between passes."""
        return self.weights + self.gradients + self.optimizer

    @property
    def tensors(self) -> float:
        """Bytes that PyTorch's allocator has handed out at the peak."""
        return self.state + self.activations + self.buffers

    @property
    def total(self) -> float:
        """Bytes that the device must have."""
        return self.context + self.fragments * self.tensors


def peak_memory(
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
    """Predict the memory of each of `ranks` devices; `passes`: forward and backward passes in a step."""
    count = parameter_count(model)
    weights, gradients, optimizer = state_bytes(count, ranks, zero_stage, precision, offload_optimizer)
    activations = micro_batch * activation_bytes(model, precision, activation_checkpointing, gpu)
    if ranks == 1 and zero_stage < 3 and not offload_optimizer:
        return _single_rank_memory(count, precision, activations, passes, gpu)
    # Two buckets on a GPU: one fills while the other is sent.
    first, last = _buffer_bytes(count, ranks, zero_stage, precision, 2 if gpu else 1)
    if gpu:
        # PyTorch's pool reuses the memory of freed activations for whatever comes next, so the larger moment
        # counts.
        buffers = max(activations + first, last) - activations
        return DeviceMemory(weights, gradients, optimizer, activations, buffers)
    # The C library's heap keeps freed memory for blocks of the same size, so both moments add up, but for the
    # share of the activations that gradients of the same shapes reuse.
    if precision == "fp32" and zero_stage < 3 and not activation_checkpointing:
        last -= min(4 * count, CPU_REUSED * activations)
    return DeviceMemory(weights, gradients, optimizer, activations, last, CPU_CONTEXT_BYTES, 1.0)


def _single_rank_memory(
    parameters: int, precision: Precision, activations: float, passes: int, gpu: bool
) -> DeviceMemory:
    """Memory of a rank without others, which copies no gradients, and in fp32 no weights.

    `parameters`: their number. `activations`: bytes. See `train/engine/single_rank_engine.py`.
    """
    # Gradients of a single pass keep their precision, several passes are summed in fp32.
    element_size = element_bytes(precision)
    optimizer = (8 if precision == "fp32" else 12) * parameters
    gradients = (4 if passes > 1 else element_size) * parameters
    if not gpu:
        # They hardly reuse memory of activations: the heap seldom has a free block of the right size.
        return DeviceMemory(
            element_size * parameters, gradients, optimizer, activations, 0, CPU_CONTEXT_BYTES
        )
    if passes > 1:
        return DeviceMemory(element_size * parameters, gradients, optimizer, activations, 0)
    # PyTorch's pool gives the gradients of a single pass the memory of freed activations.
    return DeviceMemory(element_size * parameters, 0, optimizer, activations, max(0, gradients - activations))


def _buffer_bytes(
    parameters: int, ranks: int, zero_stage: int, precision: Precision, buckets: int
) -> tuple[float, float]:
    """Bytes of buffers at two moments: beside the activations when the backward pass begins, and in their
    place when the optimizer runs.

    `parameters`: their number. `buckets`: how many exist at a time. This follows DeepSpeed 0.19 as
    `train/engine/` configures it.
    """
    element_size = element_bytes(precision)
    # The weights of all ranks are present. Gradients are sent from an fp32 copy and its clone.
    if zero_stage == 3:
        first = 4 * BUCKET + (element_size * parameters if ranks > 1 else 0)
        return first, first + 2 * 4 * min(BUCKET, parameters)
    # bf16 at ZeRO 0 and 1: the fp32 gradients are copied to be sent, after the last backward pass.
    if precision == "bf16" and zero_stage < 2:
        return 0, 4 * min(WHOLE_BUCKET, parameters)
    # Otherwise a bucket in the working precision collects them. In the end they exist in it and in fp32.
    bucket = element_size * BUCKET * buckets
    rank_share = parameters / ranks
    return bucket, bucket + (6 * rank_share if precision == "bf16" else 4 * parameters + 4 * rank_share)


def state_bytes(
    parameter_count: int, ranks: int, zero_stage: int, precision: Precision, offload_optimizer: bool = False
) -> tuple[float, float, float]:
    """Bytes of weights, fp32 gradients and AdamW's state on one device; stage 0 runs as 1."""
    element = element_bytes(precision)
    weights = element / ranks if zero_stage == 3 else element
    gradients = 4.0 if precision == "bf16" and zero_stage < 2 else 4 / ranks
    # There are only the gradients of the backward pass itself. They grow while the activations shrink, and
    # add nothing to the peak.
    if precision == "fp32" and zero_stage < 3:
        gradients = 0
    optimizer = 0 if offload_optimizer else 12 / ranks
    return parameter_count * weights, parameter_count * gradients, parameter_count * optimizer


def activation_bytes(
    model: Model, precision: Precision, activation_checkpointing: bool = False, gpu: bool = True
) -> float:
    """Bytes that one image's forward pass keeps for its backward pass."""
    shape, count, size = encoder_shape(model.name), token_counts(model), element_bytes(precision)
    wide, narrow = count.encoder * shape.width, count.decoder * model.decoder_width
    encoder = _block_bytes(count.encoder, shape.width, shape.heads, size)
    decoder = _block_bytes(count.decoder, model.decoder_width, model.decoder_heads, size)
    # On a CPU in bf16 there is no flash attention: a block also keeps new copies of what it multiplied (3),
    # and each head its attention weights, a number for each pair of tokens.
    if not gpu and precision == "bf16":
        encoder += size * (3 * wide + shape.heads * count.encoder**2)
        decoder += size * (3 * narrow + model.decoder_heads * count.decoder**2)
    # With checkpointing each block keeps its input only. One block at a time is computed again, with its
    # gradients.
    if activation_checkpointing:
        inputs = size * (shape.depth * wide + model.decoder_depth * narrow)
        blocks = inputs + (RECOMPUTED_FACTOR if gpu else CPU_RECOMPUTED_FACTOR) * max(encoder, decoder)
    else:
        blocks = shape.depth * encoder + model.decoder_depth * decoder
    ends = size * (count.kept * count.patch_values + 2 * count.encoder * shape.width)  # patches in, last norm
    ends += size * 2 * count.removed * model.decoder_width  # the decoder's last norm
    loss = 4 * 3 * count.removed * count.patch_values  # prediction, target and their difference in fp32
    return blocks + ends + loss


def _block_bytes(count: int, width: int, heads: int, size: int) -> int:
    """Bytes that one transformer block keeps of one image; attention keeps a sum for each head and token."""
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
    max_micro_batch: int = 4096,
) -> int:
    """The largest micro-batch, up to `max_micro_batch`, that fits in `memory` bytes; 0 where none fits."""

    def fits(micro_batch: int) -> bool:
        return (
            peak_memory(
                model,
                ranks=ranks,
                zero_stage=zero_stage,
                micro_batch=micro_batch,
                precision=precision,
                activation_checkpointing=activation_checkpointing,
                offload_optimizer=offload_optimizer,
                gpu=gpu,
                passes=-(-max_micro_batch // micro_batch),
            ).total
            <= memory
        )

    # Bisection, because there is no closed form: the number of passes also depends on the size.
    low, high = 0, max_micro_batch + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def element_bytes(precision: Precision) -> int:
    """Bytes of one weight or one activation."""
    return 2 if precision == "bf16" else 4
