"""What torch decides in front of its operations, by the device."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from tests.gpu.gpu_tensor import INSIDE, GpuTensor, PretendGpu, is_gpu, set_data

# From ATen's `autocast_mode.h`.
_IN_BF16 = {
    "linear", "matmul", "__matmul__", "mm", "bmm", "addmm", "baddbmm", "conv1d", "conv2d", "conv3d",
    "conv_transpose2d", "einsum", "_attention",
}  # fmt: skip
"""Functions that autocast computes in bf16 on a GPU."""
_IN_FP32 = {
    "softmax", "log_softmax", "layer_norm", "group_norm", "cross_entropy", "nll_loss", "mse_loss", "l1_loss",
    "binary_cross_entropy_with_logits", "smooth_l1_loss", "kl_div", "cumsum", "cumprod", "sum", "prod", "norm",
    "pow", "__pow__", "exp", "log", "log1p", "rsqrt", "cdist",
}  # fmt: skip
"""Functions that it computes in fp32."""


class Functions(TorchFunctionMode):
    """Sees what torch decides in front of its operations, by the device."""

    def __init__(self, gpu: PretendGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == torch.Tensor.data.__set__:  # type: ignore[attr-defined]
            return set_data(*args)
        if func is torch.Tensor.backward:
            with self:  # for its hooks
                return torch.autograd.backward(*args, kwargs.pop("gradient", None), **kwargs)
        if func in (torch.Tensor.to, torch.Tensor.cuda):
            return _move(args[0], *(args[1:] or ("cuda",) * (func is torch.Tensor.cuda)), **kwargs)
        if func is torch.Tensor.pin_memory:
            return self.gpu.page_lock(args[0].clone())
        if func is torch.Tensor.is_pinned:
            return self.gpu.is_page_locked(args[0])
        if func in (torch.tensor, torch.as_tensor) and is_gpu(kwargs.get("device")):
            device = kwargs.pop("device")
            return _move(func(*args, **kwargs), device)
        if is_gpu(kwargs.get("device")):
            # Otherwise torch would look for a driver.
            kwargs["device"] = INSIDE
        if func is torch.nn.functional.scaled_dot_product_attention and isinstance(args[0], GpuTensor):
            func = _attention
        if torch.is_autocast_enabled("cuda"):
            args, kwargs = _autocast(getattr(func, "__name__", ""), args, kwargs)
        return func(*args, **kwargs)


def _move(tensor: torch.Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> torch.Tensor:
    """`tensor.to(...)`; without a copy where the tensor is there already."""
    device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)  # type: ignore[attr-defined]
    options = {"dtype": dtype or tensor.dtype, "non_blocking": non_blocking, "copy": copy}
    if memory_format is not None:
        options["memory_format"] = memory_format
    is_there = is_gpu(device) if isinstance(tensor, GpuTensor) else device == tensor.device
    if device is None or is_there:
        return torch.Tensor.to(tensor, **options)
    return torch.Tensor.to(tensor, device=INSIDE if is_gpu(device) else device, **options)


def _attention(*qkv: torch.Tensor, **options: Any) -> torch.Tensor:
    """In plain products: torch chooses the fused kernel by the properties of a real GPU."""
    result: torch.Tensor = torch.ops.aten._scaled_dot_product_attention_math(*qkv, **options)[0]
    return result


def _autocast(name: str, args: Any, kwargs: Any) -> Any:
    """Arguments in the type that autocast chooses. torch's own does not take these tensors for a GPU's."""
    if name not in _IN_BF16 and name not in _IN_FP32:
        return args, kwargs
    dtype = torch.get_autocast_dtype("cuda") if name in _IN_BF16 else torch.float32
    return tree_map_only(GpuTensor, lambda x: x.to(dtype) if x.is_floating_point() else x, (args, kwargs))
