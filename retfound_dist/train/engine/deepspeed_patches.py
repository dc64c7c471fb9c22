"""Changes of DeepSpeed 0.19.8. Each lasts as long as its `with` block and reaches one engine.

`tests/train/engine/test_deepspeed_patches.py` shows for each what DeepSpeed does without it. Where a newer
DeepSpeed needs a change no longer, its test fails, and the change can be deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def no_shared_memory_operator() -> Iterator[None]:
    """Create DeepSpeed's communication without its operator for shared memory on CPUs.

    DeepSpeed 0.19.8 compiles that operator with gcc and ninja, for half a minute at the first start. The
    operator serves inference; training never calls it. Without the patch a first start on CPUs takes that
    much longer, and fails where there is no compiler.
    """
    import deepspeed

    operators, name = deepspeed.ops.__compatible_ops__, "deepspeed_shm_comm"
    # Where there are GPUs, DeepSpeed does not list it, and does not build it.
    listed = {name: operators[name]} if name in operators else {}
    operators.update(dict.fromkeys(listed, False))
    try:
        yield
    finally:
        operators.update(listed)


def import_muon_uncompiled() -> None:
    """Import DeepSpeed's Muon module without torch's compiler.

    The optimizers of DeepSpeed 0.19.8 import this module in a step, even where the optimizer is not Muon, and
    three functions in it are decorated to be compiled, which imports torch's compiler. Without the patch
    nothing fails, but each start takes about a second longer.
    """
    from deepspeed.runtime import compiler

    with _replaced_attribute(compiler, "compile", lambda: lambda function: function):
        import deepspeed.runtime.zero.muon.original_muon  # noqa: F401


@contextmanager
def checks_on_device() -> Iterator[None]:
    """Take a step that does not wait for the device; AdamW itself skips a gradient that is not finite.

    DeepSpeed 0.19.8 reads three values from the device in each step, and so waits for it: whether the norm is
    finite, the mark -1 where it is not, and whether the gradient is to be clipped. `skip_bad_steps` gives the
    norm's check to AdamW instead. Without the patch every step of a GPU waits for its own end before the next
    one can be queued; weights and losses stay the same.
    """
    from deepspeed.runtime import bf16_optimizer, utils
    from deepspeed.runtime.zero import stage3, stage_1_and_2

    # In the modules that use them, for each has imported the functions by name.
    with ExitStack() as stack:
        # Without: `bool(tensor)` in each step.
        for module in (bf16_optimizer, stage_1_and_2, stage3):
            stack.enter_context(_replaced_attribute(module, "is_invalid_grad_norm", lambda norm: False))
        # Without: a masked fill that reads its value from the device. The norm then stays inf or NaN, as
        # AdamW needs it.
        for module in (utils, stage_1_and_2, stage3):
            stack.enter_context(
                _replaced_attribute(module, "mask_nan_or_inf_with_val_inplace", lambda norm, **_: None)
            )
        # Without: `if clip_coef < 1` in each step that clips.
        stack.enter_context(_replaced_attribute(bf16_optimizer, "clip_tensors_by_global_norm", _clip))
        yield


@contextmanager
def _replaced_attribute(target: Any, name: str, value: Any) -> Iterator[None]:
    """The attribute `name` of `target` has another value while the block runs."""
    original = getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, original)


def skip_bad_steps(sharded: Any, optimizer: torch.optim.Optimizer) -> None:
    """Have fused AdamW take the norm's check as a tensor (`found_inf`), as torch's GradScaler gives it.

    `sharded`: DeepSpeed's optimizer around `optimizer`.
    """

    def set_found_inf(*_: Any) -> None:
        norm = sharded._global_grad_norm
        optimizer.found_inf = None if norm is None else (~true_norm(norm).isfinite()).float()  # type: ignore[attr-defined]

    optimizer.register_step_pre_hook(set_found_inf)


def _clip(input_tensors: Iterable[Tensor], max_norm: float, global_norm: Tensor, **_: Any) -> None:
    """Clip gradients in place; the factor stays on the device, and is 1 where nothing is to be clipped."""
    # 1e-6 as DeepSpeed's own `eps`.
    factor = (max_norm / (global_norm + 1e-6)).clamp(max=1.0)
    for tensor in input_tensors:
        tensor.detach().mul_(factor)


def true_norm(norm: Any) -> Tensor:
    """The gradient's norm; inf where DeepSpeed (0.19.8) marks one that is not finite by -1.

    It still does so where AdamW's state is on the host.
    """
    norm = torch.as_tensor(norm)
    return torch.where(norm < 0, torch.inf, norm)
