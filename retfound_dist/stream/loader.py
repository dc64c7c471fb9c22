"""The stream that a training loop reads: micro-batches in step order, from any step on.

Loader processes come from a fork server that has neither threads nor an open filesystem. They end with the
process that reads from them, even if it is killed.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from retfound_dist.config.schema import Data
from retfound_dist.errors import ConfigError, DataError, RetfoundError
from retfound_dist.estimate.loader_processes import available_processes
from retfound_dist.formats.shard_set import Manifest, read_manifest
from retfound_dist.formats.shard_set_counts import check_counts
from retfound_dist.io import byte_ranges, disk_errors, storage
from retfound_dist.io.byte_ranges import ReadTraffic
from retfound_dist.io.scratch import Scratch
from retfound_dist.runtime.host_cores import usable_cores
from retfound_dist.runtime.world import World, read_world
from retfound_dist.stream.augment import Augment, Draw, apply_augmentation, draw_augmentation
from retfound_dist.stream.batch_plan import BatchPlan, batch_digest, make_batch_layout, rank_slots
from retfound_dist.stream.fetch_process import FetchProcess
from retfound_dist.stream.prefetch import FetchedShards
from retfound_dist.stream.sample_reader import SampleReader
from retfound_dist.stream.stream_spec import StreamSpec
from retfound_dist.stream.worker_processes import (
    WorkerSetup,
    explain_full_shm,
    fork_server,
    hide_main_module,
)

MEMORY_ADVICE = "set data.workers or train.micro_batch lower"
ENDLESS = 1 << 40
"""Number of steps of a stream without a last step."""


@dataclass
class MicroBatch:
    """The m samples of one forward pass of one rank."""

    step: int
    """Counted from 0."""
    images: Tensor
    """(m, C, S, S) uint8; C is 1, or 3 where the shard set has colour."""
    noise: Tensor
    """(m, L) fp32: mask noise; the patches with the smallest noise stay visible."""
    weight: Tensor
    """(m,) fp32: 1, or 0 for padding."""
    keys: list[str]
    """Keys of the samples, without padding."""
    digest: int
    """Digest of `keys`."""
    faults: list[str] = field(default_factory=list)
    """Samples that could not be read and were replaced, each SHARD/KEY: REASON."""
    notes: list[str] = field(default_factory=list)
    """Lines for the user."""
    traffic: ReadTraffic = field(default_factory=ReadTraffic)
    """Reads from the store since this process's last micro-batch."""

    def pin_memory(self) -> MicroBatch:
        """A copy in page-locked memory; called by the loader if there is a GPU."""
        return replace(
            self,
            images=self.images.pin_memory(),
            noise=self.noise.pin_memory(),
            weight=self.weight.pin_memory(),
        )


class MicroBatches(Dataset[MicroBatch | RetfoundError]):
    """Micro-batches of one rank by number, `step x accumulation + pass`. An error is returned, not raised.

    PyTorch would put the traceback into the message of an error that a loader process raises.
    """

    def __init__(self, spec: StreamSpec) -> None:
        self.spec = spec
        # Created at the first read, in the loader process: this object is pickled on its way there, and
        # threads and open files cannot be pickled.
        self._reader: SampleReader | None = None
        self._fetched_shards: FetchedShards | None = None
        self._traffic_before = ReadTraffic()

    def __getitem__(self, number: int) -> MicroBatch | RetfoundError:
        try:
            return self._read_micro_batch(*divmod(number, self.spec.layout.accumulation))
        except RetfoundError as error:
            return error
        except OSError as error:
            # If it were raised, it would look like the death of this process (see `Stream._raise_errors`).
            place = str(error.filename or self.spec.cache_dir or self.spec.manifest.url)
            local = place if storage.is_local(place) else self.spec.cache_dir
            return DataError(f"cannot read from {place}: {disk_errors.explain(error, local or os.sep)}")
        except MemoryError:
            return DataError(f"memory ran out in a loader process: {MEMORY_ADVICE}")

    def close(self) -> None:
        """Stop the threads that fetch ahead in this process."""
        if self._fetched_shards:
            self._fetched_shards.close()
        self._reader = self._fetched_shards = None

    def _read_micro_batch(self, step: int, micro_step: int) -> MicroBatch:
        """Read and augment the samples that this rank trains on in one micro-step."""
        spec = self.spec
        if self._reader is None:
            # With workers=0 this is the rank's own process, which may have other traffic before.
            self._traffic_before = byte_ranges.traffic_so_far()
            self._fetched_shards = self._open_fetched_shards() if spec.remote else None
            self._reader = spec.reader(self._fetched_shards)
        if self._fetched_shards:
            self._fetched_shards.set_step(step)
        refs = spec.plan.batch(step)[rank_slots(spec.layout, spec.world.rank, micro_step)]
        images, noise, weight = self._allocate(len(refs))
        positions = list(zip(refs.shard.tolist(), refs.index.tolist(), strict=True))
        sample_ids = list(zip(refs.epoch.tolist(), refs.sample.tolist(), strict=True))
        draws: dict[int, Draw] = {}

        # The crop is drawn once the image's size is known and before its pixels are decoded, because rows
        # below the crop need not be decoded. A replacement gets the random numbers of the sample that it
        # replaces.
        def rows_needed(row: int, width: int, height: int) -> int:
            draws[row] = draw_augmentation(
                spec.augment, spec.plan.seed, *sample_ids[row], width, height, noise[row]
            )
            return draws[row].top + draws[row].height

        keys: list[str] = []
        faults: list[str] = []
        for row, sample in enumerate(self._reader.read(positions, rows_needed)):
            apply_augmentation(draws[row], sample.pixels, images[row])
            keys.append(sample.key)
            faults += sample.faults
        before, self._traffic_before = self._traffic_before, byte_ranges.traffic_so_far()
        return MicroBatch(
            step,
            torch.from_numpy(images),
            torch.from_numpy(noise),
            torch.from_numpy(weight),
            keys,
            batch_digest(keys),
            faults,
            self._fetched_shards.finish_batch() if self._fetched_shards else [],
            self._traffic_before - before,
        )

    def _allocate(self, samples: int) -> tuple[Any, Any, Any]:
        """Images, noise and weight of a micro-batch with this number of samples; the rest is padding."""
        m, augment = self.spec.layout.micro, self.spec.augment
        # With padding all micro-batches have the same shape, so that a compiled step is compiled only once.
        images = np.empty((m, 1 if self.spec.grey else 3, *augment.size), dtype=np.uint8)
        images[samples:] = 0
        noise = np.tile(np.arange(augment.patches, dtype=np.float32), (m, 1))
        return images, noise, (np.arange(m) < samples).astype(np.float32)

    def _open_fetched_shards(self) -> FetchedShards:
        """The shards of a remote set. Without loader processes, threads of this process fetch them ahead."""
        spec = self.spec
        # With loader processes a `FetchProcess` fetches them: once for the rank, not once for each process.
        prefetcher = None if spec.workers else spec.prefetcher()
        return FetchedShards(spec.cache(), spec.shards, spec.lookahead(), prefetcher)


class Stream:
    """Iterates over micro-batches; leaving its `with` block (or `close`) ends the loader processes."""

    def __init__(self, spec: StreamSpec, start_step: int, scratch: Scratch | None) -> None:
        self.spec = spec
        self._scratch = scratch
        self._start = start_step
        self._batches = MicroBatches(spec)
        self._iterator: Iterator[MicroBatch | RetfoundError] | None = None
        self._processes: list[Any] = []
        self._fetcher: FetchProcess | None = None

    def __iter__(self) -> Iterator[MicroBatch]:
        """Start at the first step of the stream; ends an earlier iterator."""
        self._end_processes()
        before = multiprocessing.active_children()
        with hide_main_module():
            # Before the loader processes, whose start takes seconds, in which the first shards can arrive.
            if self.spec.remote and self.spec.workers:
                self._fetcher = FetchProcess(self.spec)
                self._fetcher.set_step(self._start)
            with explain_full_shm(self.spec.workers):
                iterator = self._iterator = iter(self._make_loader())
        # PyTorch has no public list of a loader's processes. Other child processes must not be ended.
        self._processes = [p for p in multiprocessing.active_children() if p not in before]
        return self._raise_errors(iterator)

    def close(self) -> None:
        """End the loader processes and release the temporary shards; the node's last process removes them."""
        self._end_processes()
        if self._scratch:
            self._scratch.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _make_loader(self) -> DataLoader[MicroBatch | RetfoundError]:
        """A loader of the micro-batches of this rank, from the first step of the stream to its last."""
        workers, passes = self.spec.workers, self.spec.layout.accumulation
        return DataLoader(
            self._batches,
            # The dataset's items are micro-batches already, and PyTorch returns them in the sampler's order.
            batch_size=None,
            sampler=range(self._start * passes, self.spec.stop_step * passes),
            num_workers=workers,
            multiprocessing_context=fork_server(self.spec.manifest.url) if workers else None,
            prefetch_factor=2 if workers else None,
            worker_init_fn=WorkerSetup() if workers else None,
            pin_memory=torch.cuda.is_available(),
        )

    def _raise_errors(self, iterator: Iterator[MicroBatch | RetfoundError]) -> Iterator[MicroBatch]:
        """Yield the batches; raise an error that a loader process returned, or DataError if one died."""
        try:
            for batch in iterator:
                if isinstance(batch, RetfoundError):
                    raise batch
                if self._fetcher:
                    report = self._fetcher.set_step(batch.step)
                    batch.notes.extend(report.notes)
                    batch.traffic += report.traffic
                yield batch
        # If a loader process dies, PyTorch raises a RuntimeError. If it had a batch ready, whose memory is
        # lost, that is an EOFError or OSError.
        except (RuntimeError, EOFError, OSError) as error:
            # Recognised by its message: PyTorch (2.15) has no class for it. Other RuntimeErrors are raised.
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            raise DataError(
                f"a loader process died ({' '.join(str(error).split())[:200]}): if memory ran out, "
                f"{MEMORY_ADVICE}"
            ) from error

    def _end_processes(self) -> None:
        # A loader process only exits at a SIGTERM from its parent (`worker_processes`).
        for process in self._processes:
            with suppress(ValueError):
                process.terminate()
        self._processes = []
        self._iterator = self._fetcher = None
        self._batches.close()


def make_plan(manifest: Manifest, data: Data, global_batch: int, seed: int) -> BatchPlan:
    """The order of all samples in the part `data.split`."""
    counts = tuple(shard.samples for shard in manifest.part(data.split))
    return BatchPlan(counts, seed, global_batch, min(data.window_shards, len(counts)))


def open_stream(
    shards: str | Manifest,
    global_batch: int,
    *,
    micro_batch: int | None = None,
    image_size: int | tuple[int, int] = 224,
    patches: int = 196,
    seed: int = 0,
    world: World | None = None,
    start_step: int = 0,
    stop_step: int | None = None,
    data: Data | None = None,
    counts_checked: bool = False,
    **settings: Any,
) -> Stream:
    """This rank's micro-batches from `start_step` up to, not including, `stop_step` (None: without end).

    - `shards`: a URL, or a manifest.
    - `micro_batch`: the largest number of samples in a micro-batch; None: this rank's whole share.
    - `image_size`: a side in pixels, or height and width.
    - `patches`: the length of each sample's mask noise.
    - `world`: this process's rank; None: read from torchrun's or Slurm's environment.
    - `counts_checked`: whether `check_counts` has already passed, once for all ranks.
    - Other settings are those of the config's `[data]`, as `data` or by name: `workers=8, split="train"`.

    Raises ManifestError, StorageError or DataError if the shards cannot be used, and ConfigError for a
    setting that does not exist.
    """
    manifest = read_manifest(shards) if isinstance(shards, str) else shards
    unknown = set(settings) - set(Data.__dataclass_fields__)
    if unknown or (data and settings):
        raise ConfigError(
            f"open_stream: {sorted(unknown or settings)} cannot be used: "
            "give settings of [data], or `data` alone"
        )
    data = data or Data(shards=manifest.url, **settings)
    manifest = manifest.first_shards(data.first_shards)
    world = world or read_world(os.environ)
    # A manifest with other counts than its indexes would shift every later batch.
    if not counts_checked:
        check_counts(manifest.url, manifest.part(data.split), data.patience_s)
    plan = make_plan(manifest, data, global_batch, seed)
    batch_layout = make_batch_layout(global_batch, world.size, micro_batch or global_batch)
    size = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    augment = Augment(size, patches, data.crop_scale, data.crop_ratio, data.flip)
    remote = not storage.is_local(manifest.url)
    scratch = Scratch("shards", world.owner) if remote and not data.cache_dir else None
    folder = scratch.folder if scratch else data.cache_dir
    stop = ENDLESS if stop_step is None else stop_step
    workers = data.workers
    if workers == "auto":  # `pretrain` has replaced it, because it knows the model
        workers = available_processes(usable_cores() / world.local_size)
    spec = StreamSpec(manifest, data, plan, batch_layout, augment, world, stop, folder, workers)
    return Stream(spec, start_step, scratch)
