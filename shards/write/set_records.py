"""Types of what packing writes into a shard's index and manifest.json, and reads again to continue.

Every reader needs less of them (`formats.shard_set_files`), so that it reads sets of other programs too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from retfound_dist.config.schema.pack_settings import Suspect
from retfound_dist.formats.shard_set_files import Hex, IndexRow, Name, PackRecord, Skip
from retfound_dist.records.json_reader import Count

Pairs = list[tuple[Count, Count]]


@dataclass(frozen=True)
class ShardHead:
    """What the manifest will say of a shard."""

    name: Name
    samples: Count
    bytes: Count
    sha256: Hex
    split: str | None
    fields_sha256: Hex = ""


class StatisticsTree(TypedDict):
    """`Statistics.to_tree`."""

    grey: Count
    colour: Count
    as_is: Count
    bytes: Count
    heights: Pairs
    widths: Pairs
    error: tuple[Count, Count, Count]
    histogram: Annotated[list[Count], Field(min_length=256, max_length=256)]


@dataclass(frozen=True)
class Record:
    """An index with all that lets packing go on after its shard."""

    format: int
    shard: ShardHead
    mark: str
    next: Count
    skipped: list[Skip]
    statistics: StatisticsTree
    digests: list[str]
    looks: str
    samples: list[IndexRow]
    suspects: dict[str, dict[str, tuple[Count, list[str]]]] = field(default_factory=dict)
    source_files: list[str] | None = None
    source_pixels: list[str] | None = None


class NamesTree(TypedDict):
    """How the names of a source were judged (`people.name_policy`)."""

    keys: Literal["names", "digest"]
    why: Literal["asked", "looks", "harmless", "published", "numbers"]
    signs: dict[str, Count]
    labels: Count
    secret: NotRequired[str]


class SourceCounts(TypedDict):
    """One of the manifest's sources."""

    kind: str
    samples: Count
    patients: Count
    volumes: Count
    skipped: Count
    labels: dict[str, Count]
    splits: NotRequired[dict[str, LabelCounts]]
    patient_known: NotRequired[Count]
    straddling: NotRequired[Count]
    split_by: NotRequired[dict[str, Count]]
    notes: NotRequired[list[str]]
    names: NotRequired[NamesTree]


class LabelCounts(TypedDict):
    """A part of a source."""

    samples: Count
    labels: dict[str, Count]


class NearDuplicates(TypedDict):
    """Pictures of different patients that look alike."""

    pairs: Count
    across_parts: Count
    first: list[tuple[str, str, Count]]


class Suspected(TypedDict):
    """Pictures of one source under one suspicion."""

    images: Count
    of: Count
    first: Annotated[list[str], Field(min_length=1)]


class BurntIn(TypedDict):
    """A comparison of images; `how` and `example` came later."""

    images: Count
    height: Count
    width: Count
    share: float
    boxes: list[tuple[int, int, int, int]]
    how: NotRequired[str]
    example: NotRequired[str]


class PackedManifest(TypedDict):
    """manifest.json as far as an append goes on with it; what older sets lack has no place in its pages."""

    samples: Count
    classes: list[str]
    shards: list[dict[str, Any]]
    sources: dict[str, SourceCounts]
    near_duplicates: NearDuplicates
    skipped: list[Skip]
    recipe: dict[str, Any]
    history: list[PackRecord]
    suspects: NotRequired[dict[str, dict[Suspect, Suspected]]]
    burnt_in: NotRequired[dict[str, list[BurntIn] | BurntIn]]
    not_compared: NotRequired[dict[str, tuple[Count, Count]]]
    framed: NotRequired[dict[str, tuple[Count, Count]]]
