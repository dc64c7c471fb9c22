"""Tensors between real processes: through memory without a name, or through the pipe."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
import torch

from retfound_dist.formats.shard_set import Manifest
from retfound_dist.stream import open_stream
from retfound_dist.stream.tensor_transfer import send_tensors_in_memory
from tests.stream.stream_inputs import make_set, read_with_shm

pytestmark = pytest.mark.slow

MEMFD, SHM = "/memfd:retfound-batch", "/dev/shm/torch_"
"""What /proc/self/maps calls our memory, and PyTorch's own."""
TENSORS = {
    "grey": torch.arange(4 * 28 * 28, dtype=torch.int64).remainder(251).to(torch.uint8).view(4, 1, 28, 28),
    "noise": torch.linspace(-1, 1, 60).view(4, 15),
    "bf16": torch.linspace(0, 3, 10).to(torch.bfloat16),
    "turned": torch.arange(12.0).view(3, 4).T,
    "part": torch.arange(100)[40:45],
    "empty": torch.empty(0, 3),
}


@contextmanager
def limited(limit: int, value: int) -> Iterator[None]:
    """This process with a lower limit of a resource."""
    soft, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(limit, (soft, hard))


def send(pipe: Connection, ours: bool, limit: int, value: int) -> None:
    """What a child does: sends all tensors, and stays until they have arrived."""
    if ours:
        send_tensors_in_memory()
    if limit < 0:
        pipe.send(TENSORS)
    else:
        # PyTorch imports modules for the first tensor, and the limit would stop that.
        ForkingPickler.dumps(TENSORS["noise"])
        with limited(limit, value):
            pipe.send(TENSORS)
    pipe.recv()


def received(ours: bool = True, limit: int = -1, value: int = 0) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors as they arrive from a child, and this process's memory map then."""
    context = get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=send, args=(there, ours, limit, value))
    child.start()
    there.close()  # so that a child that fails is an EOFError here
    tensors: dict[str, torch.Tensor] = here.recv()
    maps = Path("/proc/self/maps").read_text()
    here.send("arrived")
    child.join(30)
    assert child.exitcode == 0
    return tensors, maps


def assert_all_arrived(tensors: dict[str, torch.Tensor]) -> None:
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == TENSORS[name].dtype
        assert tensor.shape == TENSORS[name].shape
        assert torch.equal(tensor, TENSORS[name])
        tensor += 1  # a batch may be changed where it was read


def test_tensors_arrive_as_they_were_in_memory_that_has_no_name() -> None:
    tensors, maps = received()
    assert MEMFD in maps
    assert SHM not in maps
    assert_all_arrived(tensors)


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        pytest.param(resource.RLIMIT_NOFILE, 3, id="no more file descriptors"),
        pytest.param(resource.RLIMIT_FSIZE, 1, id="no memory behind the file"),
    ],
)
def test_where_there_is_no_such_memory_tensors_go_through_the_pipe(limit: int, value: int) -> None:
    tensors, maps = received(limit=limit, value=value)
    assert MEMFD not in maps
    assert SHM not in maps
    assert_all_arrived(tensors)


def test_pytorch_itself_would_use_dev_shm() -> None:
    """The reason for all this; where it no longer holds, the module can go."""
    tensors, maps = received(ours=False)
    assert SHM in maps
    assert_all_arrived(tensors)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_set(tmp_path_factory.mktemp("set"))


def test_a_tiny_shm_changes_no_batch(manifest: Manifest, tmp_path: Path) -> None:
    with open_stream(manifest.url, global_batch=8, workers=0, image_size=128, stop_step=6) as stream:
        expected = [f"{batch.step} {batch.digest:x} {int(batch.images.sum())}" for batch in stream]
    assert read_with_shm(manifest.url, tmp_path, "size=100k") == expected  # a batch is 131 kB
