"""A pretended GPU: tensors that say `cuda:0`, and are computed on the CPU.

    with pretend_gpu() as gpu:
        model.to("cuda")
        with gpu.watched() as waits:
            step(model)
        assert waits == []

No GPU and no driver are needed. Values are real, so that they can be compared with those of a CPU.

It notices what a GPU would not accept:

- tensors of the CPU and of the GPU in one operation (RuntimeError; single numbers of the CPU are allowed where CUDA
  allows them)
- a generator of the CPU for random numbers on the GPU (RuntimeError)
- `.numpy()` of a tensor on the GPU (TypeError)

It notices when the host waits for the GPU, and names the function of this repository:

- a value is read: `item`, `float`, `bool`, `tolist`, `cpu`
- the shape of a result depends on values: `nonzero`, a mask as an index
- a copy to the GPU from memory that is not page-locked, or without `non_blocking`; also indices of the host
- `torch.cuda.synchronize`, and `synchronize` of events and streams

And it notices a copy to the host that is read too early: until the host waits, the copy holds NaN or 77.

It cannot notice: numbers that only a CUDA kernel gets wrong, memory that is used up, faults between streams, faults
of NCCL, a page-locked source that changes before its copy is done, operators that CUDA does not have, and what
compiled kernels do. Random numbers come from a CPU generator of its own. `torch.Generator("cuda")` does not exist.
Of the types that autocast chooses, it knows the most common functions.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from torch.utils import _foreach_utils

from tests.gpu.cuda_names import accelerator_functions, cuda_functions
from tests.gpu.gpu_tensor import GpuTensor, Operations, PretendGpu, current
from tests.gpu.torch_functions import Functions


@contextmanager
def pretend_gpu(index: int = 0, count: int = 1) -> Iterator[PretendGpu]:
    """A GPU for the code inside the block: number `index` of `count`."""
    # Now, for torch's compiler looks at `torch.cuda` when it is first imported.
    import torch._dynamo

    gpu = PretendGpu(index, count)
    with ExitStack() as stack:

        def replace(target: Any, name: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(target, name, value))

        for name, value in cuda_functions(gpu).items():
            replace(torch.cuda, name, value)
        for name, value in accelerator_functions(gpu).items():
            replace(torch.accelerator, name, value)
        # So that `module.to` keeps its parameters, as it does between a CPU and a GPU.
        replace(torch, "_has_compatible_shallow_copy_type", lambda *_: True)
        # So that optimizers do here what they do on a GPU.
        for module in (_foreach_utils, sys.modules["torch.optim.optimizer"]):
            replace(module, "_foreach_supported_types", [*module._foreach_supported_types, GpuTensor])
        stack.enter_context(Functions(gpu))
        stack.enter_context(Operations(gpu))
        stack.enter_context(current(gpu))
        yield gpu
