"""Tensors of a pretended GPU, and what their operations tell of a program."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
CPU = torch.device("cpu")
INSIDE = torch.device("lazy")
"""What torch's own C++ code takes for the device. For CUDA, its backward pass would need a driver."""
_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent.parent
_COPIES = (aten.copy_, aten._to_copy)
_INDEXED = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index)
"""CUDA takes indices of the host, and copies them."""
_TAKES_NUMBERS = (aten.masked_fill, aten.masked_fill_, aten.fill, aten.fill_)
"""Besides the operations that torch marks as pointwise: they take single numbers of the CPU."""
_VALUE_DEPENDENT = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class GpuTensor(torch.Tensor):
    """A tensor on the GPU, around `host`, which holds its values."""

    host: torch.Tensor

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> GpuTensor:
        # In inference mode, a view of a tensor from outside is a tensor from outside.
        with torch.inference_mode(host.is_inference()):
            tensor: GpuTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
                cls,
                host.shape,
                strides=host.stride(),
                storage_offset=host.storage_offset(),
                dtype=host.dtype,
                device=INSIDE,
            )
        tensor.host = host
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # For a backward pass in another thread, and for tensors that outlive their GPU.
        return current_gpu().run(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"GpuTensor({tuple(self.shape)}, {self.dtype})"

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """What Python code sees."""
        return current_gpu().device

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        """What Python code sees."""
        return True

    @property
    def data(self) -> torch.Tensor:  # type: ignore[override]
        """The same values without a gradient."""
        return torch.Tensor.data.__get__(self)  # type: ignore[attr-defined,no-any-return]

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        set_data(self, value)

    def tolist(self) -> Any:
        """Its values, which are copied to the host."""
        return self.cpu().tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        """As torch refuses it."""
        raise TypeError(f"can't convert {self.device} device type tensor to numpy: use Tensor.cpu() first")

    def new_tensor(self, values: Any, **options: Any) -> torch.Tensor:  # type: ignore[override]
        """Values of the host, on the GPU."""
        return torch.tensor(values, **{"dtype": self.dtype, "device": self.device, **options})

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(_without_lists(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_without_lists(index), value)

    def record_stream(self, stream: Any) -> None:
        """There is one queue."""


@dataclass(frozen=True)
class Wait:
    """The host waited for the GPU."""

    why: str
    where: str
    """The innermost function of this repository, as FILE FUNCTION."""


@dataclass
class PretendGpu:
    """A GPU, and what it has noticed."""

    index: int = 0
    count: int = 1
    """GPUs of this host; the others belong to other processes."""
    waits: list[Wait] = field(default_factory=list)
    free_bytes: int = 8_000_000_000
    _random_state: torch.Tensor = field(default_factory=lambda: torch.Generator().manual_seed(0).get_state())
    _page_locked: dict[int, Any] = field(default_factory=dict)
    """Storages by address. They are kept, so that no other memory gets their addresses."""
    _unfinished: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    """Copies to the host: where to, and which values."""

    @property
    def device(self) -> torch.device:
        """This GPU."""
        return torch.device("cuda", self.index)

    @contextmanager
    def watched(self) -> Iterator[list[Wait]]:
        """The waits inside the block, in their order."""
        earlier, self.waits = self.waits, []
        try:
            yield self.waits
        finally:
            self.waits = earlier + self.waits

    def wait(self, why: str) -> None:
        """The host waits until the GPU has done all that was asked of it."""
        self.waits.append(Wait(why, _line_of_repository()))
        unfinished, self._unfinished = self._unfinished, []
        for target, values in unfinished:
            target.copy_(values)

    def page_lock(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, whose memory counts as page-locked from here on."""
        storage = tensor.untyped_storage()
        self._page_locked[storage.data_ptr()] = storage
        return tensor

    def is_page_locked(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor lies in page-locked memory."""
        return tensor.device == CPU and tensor.untyped_storage().data_ptr() in self._page_locked

    def seed(self, seed: int) -> None:
        """Start the GPU's random numbers anew."""
        self._random_state = torch.Generator().manual_seed(int(seed)).get_state()

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """One operation: what CUDA would check, then the CPU's kernel."""
        packet, device = func.overloadpacket, kwargs.get("device")
        if packet is aten.copy_ or (packet is aten._to_copy and device is not None):
            return self._copy(func, args, kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_gpu = [tensor for tensor in tensors if isinstance(tensor, GpuTensor)]
        is_gpus = is_gpu(device) if device is not None else bool(on_gpu)
        if on_gpu:
            _check_devices(func, args, tensors)
            self._note_waits(func, args, kwargs)
        if is_gpus and any(isinstance(leaf, torch.Generator) for leaf in tree_leaves((args, kwargs))):
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if is_gpu(device):
            kwargs = {**kwargs, "device": CPU}
        page_locks = kwargs.get("pin_memory")
        if page_locks:
            kwargs = {**kwargs, "pin_memory": False}
        host_args, host_kwargs = tree_map_only(GpuTensor, lambda tensor: tensor.host, (args, kwargs))
        draws = is_gpus and torch.Tag.nondeterministic_seeded in func.tags
        with self._own_random_numbers() if draws else nullcontext():
            result = func(*host_args, **host_kwargs)
        if page_locks and not is_gpus:
            self.page_lock(result)
        if not is_gpus:
            return result
        # What an operation changes in place is the tensor that it was given.
        given = {id(tensor.host): tensor for tensor in on_gpu}
        return tree_map_only(
            torch.Tensor, lambda host: given[id(host)] if id(host) in given else GpuTensor(host), result
        )

    def _copy(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """`copy_`, or `_to_copy` to a device."""
        in_place = func.overloadpacket is aten.copy_
        source = args[1] if in_place else args[0]
        non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        from_gpu = isinstance(source, GpuTensor)
        to_gpu = isinstance(args[0], GpuTensor) if in_place else is_gpu(kwargs["device"])
        host_source = source.host if from_gpu else source
        if in_place:
            target = func(args[0].host if to_gpu else args[0], host_source)
        else:
            device = CPU if to_gpu else kwargs["device"]
            target = func(host_source, **{**kwargs, "device": device, "pin_memory": None})
        if to_gpu and source.device == CPU:
            if not (non_blocking and self.is_page_locked(source)):
                self.wait("copies to the GPU" + ", from memory that is not page-locked" * non_blocking)
        elif from_gpu and not to_gpu and target.device == CPU:
            # A copy that is made without blocking lies in page-locked memory.
            if non_blocking and (not in_place or self.is_page_locked(target)):
                self._unfinished.append((target, target.clone()))
                target.fill_(torch.nan if target.is_floating_point() else 77)
            else:
                self.wait("copies to the host")
        if in_place:
            return args[0]
        return GpuTensor(target) if to_gpu else target

    def _note_waits(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """The waits of an operation on tensors of the GPU."""
        packet = func.overloadpacket
        if packet in _INDEXED:
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                self.wait("indexes with a mask")
            elif not all(isinstance(index, GpuTensor) for index in indices):
                self.wait("indexes with numbers of the host")
        elif packet in (aten.masked_fill, aten.masked_fill_):
            if isinstance(args[2], GpuTensor):
                self.wait("reads the value that it fills in")
        elif any(tag in func.tags for tag in _VALUE_DEPENDENT) and kwargs.get("output_size") is None:
            self.wait(f"reads values: {packet.__name__}")

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """Random numbers of the CPU's kernels are the GPU's."""
        state = torch.default_generator.get_state()
        torch.default_generator.set_state(self._random_state)
        try:
            yield
        finally:
            self._random_state = torch.default_generator.get_state()
            torch.default_generator.set_state(state)


_current = [PretendGpu()]
"""The last one is the GPU of this process."""


def current_gpu() -> PretendGpu:
    """The GPU of this process."""
    return _current[-1]


@contextmanager
def current(gpu: PretendGpu) -> Iterator[None]:
    """It is the GPU of this process inside the block."""
    _current.append(gpu)
    try:
        yield
    finally:
        _current.pop()


class Operations(TorchDispatchMode):
    """Sees every operation, also those without a tensor of the GPU."""

    def __init__(self, gpu: PretendGpu) -> None:
        super().__init__()
        self.gpu = gpu

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled here, and the guard against it takes as long as an operation.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # In inference mode, torch leaves it to the mode to take functions apart.
        if torch.is_inference_mode_enabled() and func._can_decompose():
            with self:
                return func.decompose(*args, **(kwargs or {}))
        return self.gpu.run(func, args, kwargs or {})


def is_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type in ("cuda", INSIDE.type)


def set_data(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """`tensor.data = value`, also to another device; `tensor` stays the same object."""
    if isinstance(tensor, GpuTensor) != isinstance(value, GpuTensor):
        moved = value.detach()
        if isinstance(tensor, torch.nn.Parameter):
            moved = torch.nn.Parameter(moved, tensor.requires_grad)
        if tensor.grad is not None:
            moved.grad = tensor.grad.to(moved.device)
        torch.utils.swap_tensors(tensor, moved)
        return
    torch.Tensor.data.__set__(tensor, value)  # type: ignore[attr-defined]
    if isinstance(tensor, GpuTensor) and isinstance(value, GpuTensor):
        tensor.host = value.host


def _without_lists(index: Any) -> Any:
    """An index whose lists of numbers are tensors of the host, which is where their numbers are."""
    if isinstance(index, tuple):
        return tuple(_without_lists(each) for each in index)
    return torch.as_tensor(index) if isinstance(index, (list, np.ndarray)) else index


def _check_devices(func: Any, args: Any, tensors: list[torch.Tensor]) -> None:
    """RuntimeError where CUDA does not take a tensor of the CPU."""
    packet = func.overloadpacket
    if packet in _INDEXED:
        tensors = [each for each in (args[0], *args[2:3]) if isinstance(each, torch.Tensor)]
    on_host = [each for each in tensors if not isinstance(each, GpuTensor)]
    takes_numbers = torch.Tag.pointwise in func.tags or packet in (*_TAKES_NUMBERS, *_INDEXED)
    changes_host = func._schema.is_mutable and any(each is args[0] for each in on_host)
    if changes_host or any(each.dim() or not takes_numbers for each in on_host):
        found = ", ".join(f"{each.device.type} {tuple(each.shape)}" for each in tensors)
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {found} in {func}")


def _line_of_repository() -> str:
    """The innermost function of this repository that runs, outside of this pretence."""
    frame: Any = sys._getframe()
    while frame:
        path = Path(frame.f_code.co_filename)
        is_pretence = path.parent == _HERE and not path.name.startswith("test_")
        # The installed packages may be in a folder of the repository, `.venv`.
        is_installed = "site-packages" in path.parts
        if path.is_relative_to(_ROOT) and not is_pretence and not is_installed:
            return f"{path.relative_to(_ROOT).as_posix()} {frame.f_code.co_name}"
        frame = frame.f_back
    return "outside of this repository"
