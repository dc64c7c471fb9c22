"""Counts and sizes of the shards, from their manifest or assumed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retfound_dist.config.schema import Data
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.stream.held_out_part import held_out_part

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
    patients: int | None = None
    """Behind the images, at most; None: not known."""
    volumes: int | None = None
    """Behind the images; None: not known."""

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
    patients, volumes = people_behind(manifest.sources, data.split)
    return DataFacts(counts, sizes, remote, manifest.image, where, held_out, patients, volumes)


def people_behind(sources: Mapping[str, Any], part: str) -> tuple[int | None, int | None]:
    """(patients, volumes) behind a part's images, by the manifest's sources; None: not known of some source.

    Each image whose own patient is not known may be of one more, so that patients are the most there can be.
    """
    counts_of_sources = [_counts(tree, part) for tree in sources.values()]
    counts_of_sources = [counts for counts in counts_of_sources if counts.get("samples")]
    if not counts_of_sources:
        return None, None
    patients = None
    if all(counts.get("patients") for counts in counts_of_sources):
        unknown = (
            c["samples"] - c["patient_known"] if "patient_known" in c else 0 for c in counts_of_sources
        )
        patients = sum(counts["patients"] for counts in counts_of_sources) + sum(unknown)
    known = all(counts.get("volumes") for counts in counts_of_sources)
    return patients, sum(counts["volumes"] for counts in counts_of_sources) if known else None


def _counts(source: Any, part: str) -> Mapping[str, Any]:
    """A source's counts of one part; of a set without parts, all."""
    if not isinstance(source, Mapping):
        return {}
    splits = source.get("splits") or {}
    return source if part == "all" or not splits else splits.get(part, {})


def assumed_data(samples: int, image_bytes: float, source: str) -> DataFacts:
    """So many images of such a size, in shards of the usual size."""
    per_shard = max(1, int(SHARD_BYTES // image_bytes))
    counts = [per_shard] * (samples // per_shard) + ([samples % per_shard] if samples % per_shard else [])
    return DataFacts(tuple(counts), tuple(int(n * image_bytes) for n in counts), True, {}, source)
