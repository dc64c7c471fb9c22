"""What makes the host wait for a GPU, counted on any device."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Waits(TorchDispatchMode):
    """Counts them: a value that is read, a number of the host that is copied to the GPU, DeepSpeed's own waits."""

    WAITS = (
        torch.ops.aten._local_scalar_dense.default,
        torch.ops.aten.lift_fresh.default,  # torch.tensor(number)
        torch.ops.aten.masked_fill.Tensor,  # asks for the value that it fills in
        torch.ops.aten.masked_fill_.Tensor,
        torch.ops.aten.masked_select.default,
        torch.ops.aten.nonzero.default,
    )
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in self.WAITS
        return func(*args, **(kwargs or {}))

    def __enter__(self) -> Any:
        from deepspeed.accelerator import get_accelerator

        def wait(*_: Any) -> None:
            self.count += 1

        self._accelerator = type(get_accelerator())
        self._wait, self._accelerator.synchronize = self._accelerator.synchronize, wait
        return super().__enter__()

    def __exit__(self, *failure: Any) -> None:
        self._accelerator.synchronize = self._wait
        super().__exit__(*failure)
