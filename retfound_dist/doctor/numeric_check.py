"""`numerics`, `waits` and `graph`: does the device compute what a CPU computes in fp32, and without stops?"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from retfound_dist.doctor.check_result import CheckResult
from retfound_dist.doctor.checkup import Checkup
from retfound_dist.estimate.model_shapes import token_counts
from retfound_dist.model.compilation import GRAPHS, compile_model, should_compile
from retfound_dist.model.cpu_bf16 import choose_cpu_operators
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.runtime.world import World
from retfound_dist.stream.loader import open_stream
from retfound_dist.train.engine.engine_choice import choose_zero_stage

IMAGES = 2
"""So few, because the CPU computes them too."""
BOUNDS = {"bf16": (0.005, 0.02, 0.05), "fp32": (1e-4, 1e-3, 1e-2)}
"""Largest relative differences of the loss, of the gradient's norm and of the gradient, by `train.precision`.

bf16 keeps 8 bits of each number: the gradient of a ViT differs by about 0.01, the mean loss by 0.0002. In
fp32 only the order of additions differs. One weight in a hundred that is wrong in one layer changes the
gradient by 0.2 or more.
"""


@dataclass(frozen=True)
class StepNumbers:
    """What a forward and backward pass gives."""

    loss: float
    gradient_P: Tensor
    """All gradients in one row, in fp32 on the CPU."""


def numeric_checks(checkup: Checkup) -> Iterator[CheckResult]:
    """The three checks, on rank 0 alone; the other ranks wait."""
    yield from checkup.group.run_on_main(lambda: list(_checks_of_rank_0(checkup)))


def _checks_of_rank_0(checkup: Checkup) -> Iterator[CheckResult]:
    """Compare a step on the device with the same step on the CPU in fp32; then count waits, and time a graph.

    A device that fails or has too little memory is a failed check, not an exception.
    """
    try:
        images, noise = first_images(checkup)
        torch.manual_seed(checkup.config.train.seed)
        model = MaskedAutoencoder(checkup.config.model)
        expected = step_numbers(model, images, noise)
        device_model = model_on_device(copy.deepcopy(model), checkup)
        device_images, device_noise = images.to(checkup.group.device), noise.to(checkup.group.device)
        on_device = step_numbers(device_model, device_images, device_noise)
    except (RuntimeError, MemoryError) as error:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        what_to_do = "is the device free? Look for other programs on it (nvidia-smi)"
        yield CheckResult("numerics", "failed", text, what_to_do=what_to_do)
        return
    yield compare_numbers(on_device, expected, checkup.config.train.precision)
    if not checkup.on_gpu:
        yield CheckResult("waits", "skipped", "there is no GPU")
    else:
        yield _wait_check(device_model, device_images, device_noise)
    yield _graph_check(checkup, device_model, device_images, device_noise)


def first_images(checkup: Checkup) -> tuple[Tensor, Tensor]:
    """The first images of the run, (N, C, H, W) in 8 bits, and their mask noise, (N, L)."""
    data = replace(checkup.config.data, workers=0)
    patches = token_counts(checkup.config.model).patches
    with open_stream(
        checkup.manifest, IMAGES, image_size=checkup.config.model.size, patches=patches,
        seed=checkup.config.train.seed, data=data, counts_checked=True, world=World(),
    ) as stream:  # fmt: skip
        batch = next(iter(stream))
        return batch.images.clone(), batch.noise.clone()


def model_on_device(model: MaskedAutoencoder, checkup: Checkup) -> MaskedAutoencoder:
    """The model as the run has it: on its device, and in its precision."""
    precision = checkup.config.train.precision
    if not checkup.on_gpu:
        choose_cpu_operators(model, precision)
    return model.to(checkup.group.device, torch.bfloat16 if precision == "bf16" else torch.float32)


def step_numbers(model: MaskedAutoencoder, images: Tensor, noise: Tensor) -> StepNumbers:
    """Mean loss of the images, and its gradient."""
    model.zero_grad(set_to_none=True)
    loss = model(images, noise).float().mean()
    loss.backward()
    gradients = [p.grad.float().flatten().cpu() for p in model.parameters() if p.grad is not None]
    return StepNumbers(float(loss.detach()), torch.cat(gradients))


def compare_numbers(on_device: StepNumbers, expected: StepNumbers, precision: str) -> CheckResult:
    """Whether loss and gradient are those of the CPU in fp32, within `BOUNDS`."""
    norm, expected_norm = (float(each.gradient_P.norm()) for each in (on_device, expected))
    gaps = (
        abs(on_device.loss - expected.loss) / max(abs(expected.loss), 1e-12),
        abs(norm - expected_norm) / max(expected_norm, 1e-12),
        float((on_device.gradient_P - expected.gradient_P).norm()) / max(expected_norm, 1e-12),
    )
    bounds = BOUNDS[precision]
    loss_gap, norm_gap, gradient_gap = (
        f"{gap:.1e}, bound {bound:.0e}" for gap, bound in zip(gaps, bounds, strict=True)
    )
    text = (
        f"against a CPU in fp32: loss {on_device.loss:.5f} for {expected.loss:.5f} ({loss_gap}), norm of the "
        f"gradient {norm:.4f} for {expected_norm:.4f} ({norm_gap}), gradient ({gradient_gap})"
    )
    # `not all <`: a NaN is a failure too.
    if not all(gap < bound for gap, bound in zip(gaps, bounds, strict=True)):
        what_to_do = "do not train on this device: its numbers are wrong. Try another host and another driver"
        return CheckResult("numerics", "failed", text, gaps[2], "relative", what_to_do)
    return CheckResult("numerics", "ok", text, gaps[2], "relative")


def _wait_check(model: MaskedAutoencoder, images: Tensor, noise: Tensor) -> CheckResult:
    """How often a pass waits for the GPU."""
    step_numbers(model, images, noise)
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            model.zero_grad(set_to_none=True)
            model(images, noise).float().mean().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [str(each.message) for each in caught if "synchroniz" in str(each.message)]
    if waits:
        text = f"a forward and backward pass waits {len(waits)} times for the GPU: {waits[0][:120]}"
        return CheckResult(
            "waits", "warning", text, len(waits), "waits", "report this with your torch's version"
        )
    return CheckResult("waits", "ok", "a forward and backward pass never waits for the GPU", 0, "waits")


def _graph_check(checkup: Checkup, model: MaskedAutoencoder, images: Tensor, noise: Tensor) -> CheckResult:
    """Whether the compiled pass is as many graphs as it has parts, each compiled once."""
    train = checkup.config.train
    stage = choose_zero_stage(train, checkup.group.world.size)
    if not should_compile(train.compile, checkup.group.device, stage):
        return CheckResult("graph", "skipped", "the step of this run is not compiled (train.compile)")
    from torch._dynamo.utils import counters

    torch._dynamo.reset()  # parts that this process has compiled before would not be counted
    counters.clear()
    compile_model(model)
    try:
        for _ in range(2):
            step_numbers(model, images, noise)
    except Exception as error:  # the compiler raises errors of its own kinds
        text = " ".join(str(error).split())[:300]
        return CheckResult("graph", "failed", text, what_to_do="set train.compile=false")
    graphs, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
    text = f"{graphs} graphs, {breaks} breaks"
    status = "ok" if (graphs, breaks) == (GRAPHS, 0) else "warning"
    what_to_do = "" if status == "ok" else "report this with your torch's version, or set train.compile=false"
    return CheckResult("graph", status, text, graphs, "graphs", what_to_do)  # type: ignore[arg-type]
