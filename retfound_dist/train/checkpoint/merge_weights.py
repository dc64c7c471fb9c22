"""Merges the fp32 weights from the parts of all ranks.

In a save every rank writes its part of the fp32 weights besides its training state. When all parts are at the
run's URL, rank 0's upload process merges them to `model.safetensors`. Gathering them over the process group
would stop training instead. The layout of the parts is DeepSpeed's (0.19.8). Stages 1 and 2 concatenate the
tensors of a parameter group and divide the result into equal parts. Stage 3 divides every tensor, padded to a
multiple of the ranks.
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
_FLAT, _PARTITIONED = "single_partition_of_fp32_groups", "fp32_flat_groups"


def part_name(rank: int) -> str:
    """The name of a rank's part in a save. The file is removed after the weights are merged."""
    return f"{PARTS}/{rank:05d}.safetensors"


def rank_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """This rank's fp32 weights from its snapshot: one flat tensor for each group, or one in all (stage 3)."""
    optimizer = next(
        value["optimizer_state_dict"] for value in state.values() if "optimizer_state_dict" in value
    )
    if _FLAT in optimizer:
        return {str(number): part.contiguous() for number, part in enumerate(optimizer[_FLAT])}
    return {"all": torch.cat([part.flatten() for part in optimizer[_PARTITIONED]])}


def group_shapes(state: Mapping[str, Any]) -> Shapes:
    """Names and shapes of the trained tensors, from rank 0's snapshot."""
    groups = next(value["param_shapes"] for value in state.values() if "param_shapes" in value)
    return [{name: tuple(shape) for name, shape in group.items()} for group in groups]


def merge(parts: Sequence[Mapping[str, Tensor]], shapes: Shapes) -> dict[str, Tensor]:
    """The weights by name, from the parts of all ranks in order."""
    if "all" in parts[0]:
        return _merge_partitioned([part["all"] for part in parts], shapes)
    weights: dict[str, Tensor] = {}
    for number, group in enumerate(shapes):
        flat = torch.cat([part[str(number)] for part in parts])
        sizes = [torch.Size(shape).numel() for shape in group.values()]
        # The rest is padding: DeepSpeed divides a group into parts of equal length.
        if sum(sizes) > len(flat):
            raise CheckpointError(f"the parts hold {len(flat)} numbers, but the model has {sum(sizes)}")
        pieces = torch.split(flat[: sum(sizes)], sizes)
        for (name, shape), piece in zip(group.items(), pieces, strict=True):
            # Cloned, because safetensors refuses tensors that share memory.
            weights[name] = piece.reshape(shape).clone()
    return weights


def _merge_partitioned(parts: Sequence[Tensor], shapes: Shapes) -> dict[str, Tensor]:
    """Join tensors of which each rank has an equal piece (ZeRO 3)."""
    named = {name: torch.Size(shape) for group in shapes for name, shape in group.items()}
    sizes = [-(-shape.numel() // len(parts)) for shape in named.values()]
    if sum(sizes) > len(parts[0]):
        raise CheckpointError(
            f"the parts hold {len(parts[0])} numbers each, but the model needs {sum(sizes)}"
        )
    pieces = zip(*(torch.split(part[: sum(sizes)], sizes) for part in parts), strict=True)
    return {
        name: torch.cat(piece)[: shape.numel()].reshape(shape)
        for (name, shape), piece in zip(named.items(), pieces, strict=True)
    }


def write_merged_weights(
    url: str, mark: str, parts: Sequence[FileInfo], shapes: Shapes, untrained: str, scratch: str
) -> dict[str, FileInfo]:
    """Merge the parts at a checkpoint's URL and upload the file of its weights; returns it by its name.

    `mark`: of the save. `untrained`: a local file with the untrained tensors, which DeepSpeed has rounded to
    the working precision. StorageError if a store or a disk fails: then the caller can try again.
    """
    parts_of_ranks = []
    for rank, info in enumerate(parts):
        where = storage.join(url, checkpoint_folder.name_with_mark(part_name(rank), mark))
        path = os.path.join(scratch, "part")
        if difference := verified_files.fetch(where, path, info):
            raise StorageError(f"{where} is not what rank {rank} wrote: {difference}")
        parts_of_ranks.append(safetensors.torch.load_file(path))
    weights = merge(parts_of_ranks, shapes) | safetensors.torch.load_file(untrained)
    path = os.path.join(scratch, checkpoint_folder.WEIGHTS)
    write_tensors(weights, path)
    name = checkpoint_folder.weights_name(url, mark)
    return {name: verified_files.upload_verified(path, storage.join(url, name))}


def write_tensors(tensors: Mapping[str, Tensor], path: str) -> None:
    """Write a local safetensors file; StorageError names the disk if it cannot be written."""
    with local_write_errors(path):
        safetensors.torch.save_file(dict(tensors), path)


@contextmanager
def local_write_errors(path: str) -> Iterator[None]:
    """StorageError that names the disk if torch or safetensors cannot write a local file."""
    with verified_files.local_disk_errors(path):
        try:
            yield
        except (RuntimeError, safetensors.SafetensorError) as error:
            # torch and safetensors have their own errors for a full disk; EIO if the cause is unknown.
            disk_error = disk_errors.underlying_disk_error(error, os.path.dirname(path))
            raise disk_error or OSError(errno.EIO, str(error)) from error
