"""Types of a shard set's JSON files. Reading with them refuses wrong types and names that are paths."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, Field, with_config
from typing_extensions import TypedDict

from retfound_dist.records import plain_names
from retfound_dist.records.json_reader import Count


def _checked_name(name: str) -> str:
    if fault := plain_names.name_fault(name):
        raise ValueError(f"{ascii(name)[:120]} {fault}: this software does not write such names")
    return name


# In the type, not in the readers: every reader of a manifest joins these names to a folder, or names a copy
# in a cache by a digest. A forged `../x` must not reach any of them.
Name = Annotated[str, AfterValidator(_checked_name)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{0,64}$")]


@dataclass(frozen=True)
class IndexFile:
    """A shard's index file."""

    name: Name
    bytes: Count
    sha256: Hex


class Skip(TypedDict):
    """A scan that was not packed."""

    key: str
    origin: str
    reason: str


class PackRecord(TypedDict):
    """One pack or append that the set was made by."""

    fingerprint: str
    shards: Count
    recipe: dict[str, Any]


@dataclass(frozen=True)
class ShardRow:
    """One entry of `shards` in manifest.json."""

    name: Name
    samples: Count
    bytes: Count
    sha256: Hex
    index: IndexFile
    split: str | None = None
    fields_sha256: Hex = ""


class SourcePart(TypedDict, total=False):
    """Counts of a source, or of one part of it."""

    samples: Count
    patients: Count
    patient_known: Count
    volumes: Count
    labels: dict[str, Count]


@with_config(extra="allow")
class SourceFacts(SourcePart, total=False):
    """One entry of `sources` in manifest.json: the keys that plans and data cards use."""

    kind: str
    splits: dict[str, SourcePart]


@with_config(extra="allow")
class ImageFacts(TypedDict, total=False):
    """`image` in manifest.json: the keys that plans and data cards use."""

    grey: Count
    colour: Count
    median_height: Count
    median_width: Count
    mean: float
    std: float
    histogram: list[Count]


@dataclass(frozen=True)
class ManifestFile:
    """manifest.json."""

    samples: Count
    shards: list[ShardRow]
    sources: dict[str, SourceFacts]
    image: ImageFacts
    skipped: list[Skip]
    classes: list[str] = field(default_factory=list)
    recipe: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    suspects: dict[str, Any] = field(default_factory=dict)
    history: list[PackRecord] = field(default_factory=list)


IndexRow = tuple[str, str, Count, Count, Count, Count, str]
"""A sample in an index: the fields of `shard_set.Entry`."""
# A list and not an object for each sample: an index of millions of samples would repeat every key.


@dataclass(frozen=True)
class Index:
    """The keys of an index file that every reader needs."""

    format: int
    samples: list[IndexRow]


@dataclass(frozen=True)
class IndexHead:
    """`shard` at the beginning of an index file."""

    samples: Count


class SampleFields(TypedDict):
    """KEY.json in a shard: the keys that are read. Every key may be missing in sets that others made."""

    label: NotRequired[str | int | None]
    patient: NotRequired[str | int | None]
    volume: NotRequired[str | int | None]
    group: NotRequired[str | int | None]
    source: NotRequired[str | None]
    split: NotRequired[str | None]
    eye: NotRequired[str | None]
    slice: NotRequired[int | None]


class PackedFields(SampleFields):
    """KEY.json as packing writes it."""

    height: Count
    width: Count
