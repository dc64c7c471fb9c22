"""Sends tensors from a loader process to its reader in anonymous memory, not in /dev/shm.

PyTorch uses /dev/shm. A container limits its size (Docker: 64 MB), and a killed process can leave files in
it. Memory from memfd_create(2) has no name, and only the machine's limit. If it cannot be allocated, the
bytes go through the pipe, which is slower.
"""

from __future__ import annotations

import os
from multiprocessing.reduction import DupFd, ForkingPickler
from typing import Any

import torch
from torch.multiprocessing.reductions import rebuild_storage_empty, rebuild_storage_fd

_WRITE_BYTES = 1 << 30
"""Bytes of one write; Linux takes at most 2 GB."""


def send_tensors_in_memory(_: int = 0) -> None:
    """Make this process send its tensors in this way. The argument, a worker's number, is not used."""
    # The last registration counts: this replaces that of torch.multiprocessing.
    ForkingPickler.register(torch.UntypedStorage, _reduce)


def _reduce(storage: torch.UntypedStorage) -> Any:
    """The value that ForkingPickler sends for the memory of a tensor."""
    # An empty file cannot be mapped into memory (mmap refuses a length of 0).
    if storage.nbytes() == 0:
        return rebuild_storage_empty, (type(storage),)
    data = memoryview(_as_bytes(storage).numpy())  # type: ignore[arg-type]
    # Fails if this process has too many open files. Then the batch goes through the pipe, which is open
    # already.
    try:
        file = os.memfd_create("retfound-batch")
    except OSError:
        return _rebuild, (bytes(data),)
    try:
        for start in range(0, len(data), _WRITE_BYTES):
            _write(file, data[start : start + _WRITE_BYTES])
        return rebuild_storage_fd, (type(storage), DupFd(file), len(data))
    except OSError:
        return _rebuild, (bytes(data),)
    finally:
        os.close(file)


def _write(file: int, data: memoryview) -> None:
    while len(data):
        data = data[os.write(file, data) :]


def _rebuild(data: bytes) -> torch.UntypedStorage:
    storage: torch.UntypedStorage = torch.UntypedStorage(len(data))  # type: ignore[no-untyped-call]
    _as_bytes(storage).numpy()[:] = memoryview(data)
    return storage


def _as_bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(storage)
