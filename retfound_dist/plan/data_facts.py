"""Counts and sizes of the shards, from the manifest or assumed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retfound_dist.config.schema import Data
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.stream.held_out_part import held_out_part

SHARD_BYTES = 64_000_000
"""Size of a shard where there is no shard set yet: the default of `out.shard_mb`."""


@dataclass(frozen=True)
class DataFacts:
    """The part of the shard set that is trained on."""

    counts: tuple[int, ...]
    """Samples of each shard."""
    sizes: tuple[int, ...]
    """Bytes of each shard."""
    remote: bool
    image: dict[str, object]
    """The manifest's section `image`; empty where there is no shard set yet."""
    source: str
    """Where the numbers come from, for a person."""
    held_out: bool = True
    """Whether some patients are not trained on; True where it is not known."""
    patients: int | None = None
    """The most patients that the images can be of; None where it is not known."""
    volumes: int | None = None
    """Volumes that the images are of; None where it is not known."""

    @property
    def samples(self) -> int:
        """Images in an epoch."""
        return sum(self.counts)

    @property
    def bytes(self) -> int:
        """Bytes of all shards."""
        return sum(self.sizes)


def packed_data(manifest: Manifest, data: Data, remote: bool) -> DataFacts:
    """The facts of an existing shard set."""
    part = manifest.part(data.split)
    counts, sizes = tuple(s.samples for s in part), tuple(s.bytes for s in part)
    held_out = bool(held_out_part(data, manifest))
    source = f"{manifest.url}, part {data.split!r}"
    patients, volumes = count_patients(manifest.sources, data.split)
    return DataFacts(counts, sizes, remote, manifest.image, source, held_out, patients, volumes)


def count_patients(sources: Mapping[str, Any], part: str) -> tuple[int | None, int | None]:
    """(patients, volumes) of a part, by the manifest's sources; None where a source does not know them.

    An image without a known patient may be of one more patient, so the number of patients is an upper bound.
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
    volumes_known = all(counts.get("volumes") for counts in counts_of_sources)
    return patients, sum(counts["volumes"] for counts in counts_of_sources) if volumes_known else None


def _counts(source: Any, part: str) -> Mapping[str, Any]:
    """A source's counts for one part; for a set without parts, those of the whole set."""
    if not isinstance(source, Mapping):
        return {}
    splits = source.get("splits") or {}
    return source if part == "all" or not splits else splits.get(part, {})


def assumed_data(samples: int, image_bytes: float, source: str) -> DataFacts:
    """The facts of so many images of this mean size, in shards of the default size."""
    per_shard = max(1, int(SHARD_BYTES // image_bytes))
    counts = [per_shard] * (samples // per_shard) + ([samples % per_shard] if samples % per_shard else [])
    return DataFacts(tuple(counts), tuple(int(n * image_bytes) for n in counts), True, {}, source)
