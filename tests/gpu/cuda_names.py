"""What takes the place of names of `torch.cuda` and `torch.accelerator`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from tests.gpu.gpu_tensor import PretendGpu, current_gpu


class _Event:
    """`torch.cuda.Event`."""

    def __init__(self, **_: Any) -> None:
        pass

    def record(self, *_: Any) -> None:
        """The host goes on."""

    wait = record

    def synchronize(self) -> None:
        """The host waits."""
        current_gpu().wait("waits for an event")

    def query(self) -> bool:
        """Whether it has passed; the host does not wait for the answer."""
        return True

    def elapsed_time(self, _: Any) -> float:
        """Milliseconds."""
        return 1.0


class _Stream:
    """`torch.cuda.Stream`. There is one queue, in which nothing overtakes."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.device = current_gpu().device

    def wait_stream(self, _: Any) -> None:
        """The host goes on."""

    wait_event = wait_stream

    def record_event(self, event: Any = None) -> Any:
        """A mark in the queue."""
        return event or _Event()

    def is_capturing(self) -> bool:
        """Whether it records a CUDA graph."""
        return False

    def synchronize(self) -> None:
        """The host waits."""
        current_gpu().wait("waits for a stream")


def cuda_functions(gpu: PretendGpu) -> dict[str, Any]:
    """What takes the place of names of `torch.cuda`."""

    def answer(value: Any = None) -> Callable[..., Any]:
        return lambda *_, **__: value

    properties = SimpleNamespace(name="pretended GPU", total_memory=gpu.free_bytes, uuid="0-0-0-0-0")
    return {
        **dict.fromkeys(
            ("_lazy_init", "init", "set_device", "reset_peak_memory_stats", "empty_cache"), answer()
        ),
        **dict.fromkeys(("memory_allocated", "max_memory_allocated", "max_memory_reserved"), answer(0)),
        "is_available": answer(True),
        "is_bf16_supported": answer(True),
        "device_count": answer(gpu.count),
        "current_device": answer(gpu.index),
        "get_device_name": answer(properties.name),
        "get_device_capability": answer((9, 0)),
        "get_device_properties": answer(properties),
        "mem_get_info": lambda *_: (gpu.free_bytes, gpu.free_bytes),
        "synchronize": lambda *_: gpu.wait("torch.cuda.synchronize"),
        "manual_seed": gpu.seed,
        "manual_seed_all": gpu.seed,
        "Event": _Event,
        "set_sync_debug_mode": answer(),
        "Stream": _Stream,
        "current_stream": lambda *_: _Stream(),
        "default_stream": lambda *_: _Stream(),
        "stream": lambda *_: nullcontext(),
        "device": lambda *_: nullcontext(),
    }


def accelerator_functions(gpu: PretendGpu) -> dict[str, Any]:
    """What takes the place of names of `torch.accelerator`."""
    return {
        "is_available": lambda: True,
        "current_accelerator": lambda *_, **__: gpu.device,
        "current_device_index": lambda: gpu.index,
        "current_stream": lambda *_: _Stream(),
        "synchronize": lambda *_: gpu.wait("torch.accelerator.synchronize"),
    }
