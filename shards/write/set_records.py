"""Types of the fields that packing writes into indexes and manifest.json, and reads again to continue.

Training requires fewer fields (`formats.shard_set_files`), so that it also reads sets of other programs.
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
    """A shard's entry for the manifest."""

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
class IndexRecord:
    """An index file with everything that packing needs to continue after its shard."""

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
    """Whether a source's keys are names or digests, and why (`people.name_policy`)."""

    keys: Literal["names", "digest"]
    why: Literal["asked", "looks", "harmless", "published", "numbers"]
    signs: dict[str, Count]
    labels: Count
    secret: NotRequired[str]


class SourceCounts(TypedDict):
    """The counts of one source in the manifest."""

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
    """The counts of one part of a source."""

    samples: Count
    labels: dict[str, Count]


class NearDuplicates(TypedDict):
    """Pictures of different patients that look alike."""

    pairs: Count
    across_parts: Count
    first: list[tuple[str, str, Count]]


class Suspected(TypedDict):
    """Suspect pictures of one source and kind."""

    images: Count
    of: Count
    first: Annotated[list[str], Field(min_length=1)]


class BurntIn(TypedDict):
    """One comparison of a source's images. Older versions did not write `how` and `example`."""

    images: Count
    height: Count
    width: Count
    share: float
    boxes: list[tuple[int, int, int, int]]
    how: NotRequired[str]
    example: NotRequired[str]


class PackedManifest(TypedDict):
    """The fields of manifest.json that an append reads. Older versions did not write the NotRequired ones."""

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
