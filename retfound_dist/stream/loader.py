"""The stream a training loop reads: micro-batches in step order, from any step on.

    stream = open_stream(manifest, data, model_inputs, layout, seed, rank=0, start_step=0, stop_step=100)
    for batch in stream: ...

Loader processes come from a fork server that holds neither threads nor an open filesystem.
"""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from retfound_dist import storage
from retfound_dist.schema import Data
from retfound_dist.shardset import Manifest
from retfound_dist.stream.augment import Augment, augment
from retfound_dist.stream.cache import ShardFiles
from retfound_dist.stream.plan import Layout, Plan, batch_digest, rank_slots
from retfound_dist.stream.reader import read_sample


@dataclass
class MicroBatch:
    """What one forward pass of one rank reads."""

    step: int
    images: Tensor
    """(m, C, S, S) uint8."""
    noise: Tensor
    """(m, L) fp32: mask noise, smallest stays visible."""
    weight: Tensor
    """(m,) fp32: 1, or 0 for padding."""
    keys: list[str]
    """Keys of the samples, padding left out."""
    digest: int
    """Digest of `keys`."""
    faults: list[str]
    """What could not be read and was replaced."""


class MicroBatches(Dataset[MicroBatch]):
    """Micro-batch `step x accumulation + pass` of one rank, by number."""

    def __init__(
        self, manifest: Manifest, split: str, plan: Plan, cut: Layout, how: Augment, rank: int, cache_dir: str
    ) -> None:
        self.url, self.shards = manifest.url, manifest.part(split)
        self.plan, self.cut, self.how, self.rank, self.cache_dir = plan, cut, how, rank, cache_dir
        self.grey = not manifest.image.get("colour")
        self._files: ShardFiles | None = None
        self._held: list[tuple[int, int]] = []

    def __getitem__(self, number: int) -> MicroBatch:
        step, micro_step = divmod(number, self.cut.accumulation)
        if self._files is None:
            self._files = ShardFiles(self.url, self.cache_dir, keep=2 * self.plan.window)
        slots = self.plan.batch(step)[rank_slots(self.cut, self.rank, micro_step)]
        images, noises, keys, faults = [], [], [], []
        for epoch, shard, index, sample in zip(
            slots.epoch, slots.shard, slots.index, slots.sample, strict=True
        ):
            found = read_sample(self._files.open(self.shards[shard]), int(index), self.grey)
            pixels, noise = augment(found.pixels, self.how, self.plan.seed, int(epoch), int(sample))
            images.append(pixels)
            noises.append(noise)
            keys.append(found.key)
            faults += [found.fault] if found.fault else []
        return self._padded(step, images, noises, keys, faults)

    def _padded(
        self, step: int, images: list[Any], noises: list[Any], keys: list[str], faults: list[str]
    ) -> MicroBatch:
        m, size = self.cut.micro, self.how.image_size
        image_block = np.zeros((m, 1 if self.grey else 3, size, size), dtype=np.uint8)
        noise_block = np.tile(np.arange(self.how.patches, dtype=np.float32), (m, 1))
        if images:
            image_block[: len(images)], noise_block[: len(images)] = np.stack(images), np.stack(noises)
        weight = np.zeros(m, dtype=np.float32)
        weight[: len(images)] = 1
        return MicroBatch(
            step,
            torch.from_numpy(image_block),
            torch.from_numpy(noise_block),
            torch.from_numpy(weight),
            keys,
            batch_digest(keys),
            faults,
        )


class Stream:
    """Iterates over micro-batches; `close` ends the loader processes."""

    def __init__(self, data: MicroBatches, numbers: range, workers: int, scratch: str | None) -> None:
        self._scratch = scratch
        context = None
        if workers:
            context = multiprocessing.get_context("forkserver")
            forkserver.set_forkserver_preload([__name__])
        self._loader = DataLoader(
            data,
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            multiprocessing_context=context,
            prefetch_factor=2 if workers else None,
            worker_init_fn=_one_thread if workers else None,
        )
        self._iterator: Iterator[MicroBatch] | None = None

    def __iter__(self) -> Iterator[MicroBatch]:
        self._iterator = iter(self._loader)
        return self._iterator

    def close(self) -> None:
        """End the loader processes and remove the temporary shards."""
        self._iterator = None
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def make_plan(manifest: Manifest, data: Data, global_batch: int, seed: int) -> Plan:
    """The order of the part of the shard set that is trained on."""
    counts = tuple(shard.samples for shard in manifest.part(data.split))
    return Plan(counts, seed, global_batch, min(data.window_shards, len(counts)))


def open_stream(
    manifest: Manifest,
    data: Data,
    plan: Plan,
    cut: Layout,
    image_size: int,
    patches: int,
    rank: int = 0,
    start_step: int = 0,
    stop_step: int = 1,
) -> Stream:
    """This rank's micro-batches from `start_step` up to, not including, `stop_step`."""
    how = Augment(image_size, patches, data.crop_scale, data.crop_ratio, data.flip)
    scratch = None
    if not storage.is_local(manifest.url) and not data.cache_dir:
        scratch = tempfile.mkdtemp(prefix="retfound-shards-")
    batches = MicroBatches(manifest, data.split, plan, cut, how, rank, data.cache_dir or scratch or "")
    numbers = range(start_step * cut.accumulation, stop_step * cut.accumulation)
    return Stream(batches, numbers, data.workers, scratch)
