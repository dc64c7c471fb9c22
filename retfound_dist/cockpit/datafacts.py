"""What a plan knows of the shards: from their manifest, or assumed. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from retfound_dist.heldout import held_out_part
from retfound_dist.schema import Data
from retfound_dist.shardset import Manifest

SHARD_BYTES = 64_000_000
"""Assumed where there is no shard set yet: `out.shard_mb`'s default."""


@dataclass(frozen=True)
class DataFacts:
    """The part of the shard set that is trained on."""

    counts: tuple[int, ...]
    """Samples of each shard."""
    sizes: tuple[int, ...]
    """Bytes of each shard."""
    remote: bool
    image: dict[str, object]
    """The manifest's section; empty where there is none yet."""
    source: str
    held_out: bool = True
    """Whether some patients can be kept from training; True where it is not known."""

    @property
    def samples(self) -> int:
        """Images an epoch."""
        return sum(self.counts)

    @property
    def bytes(self) -> int:
        """Of all shards."""
        return sum(self.sizes)


def data_of(manifest: Manifest, data: Data, remote: bool) -> DataFacts:
    """From a shard set that is there."""
    part = manifest.part(data.split)
    counts, sizes = tuple(s.samples for s in part), tuple(s.bytes for s in part)
    held_out = bool(held_out_part(data, manifest))
    where = f"{manifest.url}, part {data.split!r}"
    return DataFacts(counts, sizes, remote, manifest.image, where, held_out)


def assumed_data(samples: int, image_bytes: float, source: str) -> DataFacts:
    """So many images of such a size, in shards of the usual size."""
    each = max(1, int(SHARD_BYTES // image_bytes))
    counts = [each] * (samples // each) + ([samples % each] if samples % each else [])
    return DataFacts(tuple(counts), tuple(int(n * image_bytes) for n in counts), True, {}, source)
