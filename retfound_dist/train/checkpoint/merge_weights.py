"""Merges all weights in fp32 from what each rank holds of them.

With a save every rank writes its part of the fp32 weights besides its training state. When all parts are at
the run's URL, rank 0's upload process makes `model.safetensors` of them. Gathering them over the process
group instead would stop training. The layout of the parts is DeepSpeed's (0.19.8): stages 1 and 2 lay the
tensors of a parameter group end to end and cut the whole into equal parts; stage 3 cuts every tensor, padded
to a multiple of the ranks.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from retfound_dist.errors import CheckpointError, StorageError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.checkpoint_folder import PARTS
from retfound_dist.io import disk_errors, storage, verified_files
from retfound_dist.io.storage import FileInfo

Shapes = list[dict[str, tuple[int, ...]]]
"""Names and shapes of the trained tensors, by parameter group, in order."""
_FLAT, _CUT = "single_partition_of_fp32_groups", "fp32_flat_groups"


def part_name(rank: int) -> str:
    """The name of a rank's file in a save, which exists until the weights are merged."""
    return f"{PARTS}/{rank:05d}.safetensors"


def rank_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """This rank's fp32 weights out of its snapshot: one flat tensor a group, or one in all (stage 3)."""
    optimizer = next(
        value["optimizer_state_dict"] for value in state.values() if "optimizer_state_dict" in value
    )
    if _FLAT in optimizer:
        return {str(number): part.contiguous() for number, part in enumerate(optimizer[_FLAT])}
    return {"all": torch.cat([part.flatten() for part in optimizer[_CUT]])}


def group_shapes(state: Mapping[str, Any]) -> Shapes:
    """Names and shapes of what the parts hold, out of rank 0's snapshot."""
    groups = next(value["param_shapes"] for value in state.values() if "param_shapes" in value)
    return [{name: tuple(shape) for name, shape in group.items()} for group in groups]


def merge(parts: Sequence[Mapping[str, Tensor]], shapes: Shapes) -> dict[str, Tensor]:
    """The weights by name, from all ranks' parts in order."""
    if "all" in parts[0]:
        return _merge_cut([part["all"] for part in parts], shapes)
    weights: dict[str, Tensor] = {}
    for number, group in enumerate(shapes):
        flat = torch.cat([part[str(number)] for part in parts])
        sizes = [torch.Size(shape).numel() for shape in group.values()]
        # More than the sum is padding: DeepSpeed cuts a group into parts of one length.
        if sum(sizes) > len(flat):
            raise CheckpointError(f"the parts hold {len(flat)} numbers, the model has {sum(sizes)}")
        pieces = torch.split(flat[: sum(sizes)], sizes)
        for (name, shape), piece in zip(group.items(), pieces, strict=True):
            # Cloned, for safetensors refuses tensors that share memory.
            weights[name] = piece.reshape(shape).clone()
    return weights


def _merge_cut(parts: Sequence[Tensor], shapes: Shapes) -> dict[str, Tensor]:
    named = {name: torch.Size(shape) for group in shapes for name, shape in group.items()}
    sizes = [-(-shape.numel() // len(parts)) for shape in named.values()]
    if sum(sizes) > len(parts[0]):
        raise CheckpointError(f"the parts hold {len(parts[0])} numbers each, the model needs {sum(sizes)}")
    pieces = zip(*(torch.split(part[: sum(sizes)], sizes) for part in parts), strict=True)
    return {
        name: torch.cat(piece)[: shape.numel()].reshape(shape)
        for (name, shape), piece in zip(named.items(), pieces, strict=True)
    }


def write_merged_weights(
    url: str, mark: str, parts: Sequence[FileInfo], shapes: Shapes, untrained: str, scratch: str
) -> dict[str, FileInfo]:
    """Merge the parts at a checkpoint's URL to the file of its weights there; gives it by its name.

    `mark`: the save's. `untrained`: a local file with the untrained tensors, which DeepSpeed has rounded to
    the working precision. StorageError where a store or a disk fails: then it is worth another try.
    """
    parts_of_ranks = []
    for rank, info in enumerate(parts):
        where = storage.join(url, checkpoint_folder.name_with_mark(part_name(rank), mark))
        path = os.path.join(scratch, "part")
        if why := verified_files.fetch(where, path, info):
            raise StorageError(f"{where} is not what rank {rank} wrote: {why}")
        parts_of_ranks.append(safetensors.torch.load_file(path))
    weights = merge(parts_of_ranks, shapes) | safetensors.torch.load_file(untrained)
    path = os.path.join(scratch, checkpoint_folder.WEIGHTS)
    write_tensors(weights, path)
    name = checkpoint_folder.weights_name(url, mark)
    return {name: verified_files.upload_verified(path, storage.join(url, name))}


def write_tensors(tensors: Mapping[str, Tensor], path: str) -> None:
    """Write a local safetensors file; StorageError names the disk where it takes no more."""
    with disk_named(path):
        safetensors.torch.save_file(dict(tensors), path)


@contextmanager
def disk_named(path: str) -> Iterator[None]:
    """StorageError that names the disk of a local file where torch or safetensors could not write it."""
    with verified_files.local_disk_errors(path):
        try:
            yield
        except (RuntimeError, safetensors.SafetensorError) as error:
            # torch and safetensors wrap a full disk in errors of their own; EIO where no cause can be told.
            known = disk_errors.trouble_behind(error, os.path.dirname(path))
            raise known or OSError(errno.EIO, str(error)) from error
