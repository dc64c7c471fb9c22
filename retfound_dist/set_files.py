"""What stands in a shard set's JSON files, typed: lists for objects, a name that is a path, a cut file.

An index is not read by `records`: the manifest holds its sha256, and a stream reads hundreds of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from retfound_dist import names
from retfound_dist.json_faults import why_bad
from retfound_dist.records import Count


def _plain(name: str) -> str:
    if why := names.why_not_plain(name):
        raise ValueError(f"{ascii(name)[:120]} {why}: such a name is never written here")
    return name


Name = Annotated[str, AfterValidator(_plain)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{0,64}$")]


@dataclass(frozen=True)
class IndexFile:
    """A shard's index file."""

    name: Name
    bytes: Count
    sha256: Hex


class Skip(TypedDict):
    """A scan that was kept out."""

    key: str
    origin: str
    reason: str


class Part(TypedDict):
    """A pack or an append that made the set."""

    fingerprint: str
    shards: Count
    recipe: dict[str, Any]


@dataclass(frozen=True)
class ShardRow:
    """One of the manifest's shards, as it stands in the file."""

    name: Name
    samples: Count
    bytes: Count
    sha256: Hex
    index: IndexFile
    split: str | None = None
    fields_sha256: Hex = ""


@dataclass(frozen=True)
class ManifestFile:
    """manifest.json."""

    samples: Count
    shards: list[ShardRow]
    sources: dict[str, Any]
    image: dict[str, Any]
    skipped: list[Skip]
    classes: list[str] = field(default_factory=list)
    recipe: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    suspects: dict[str, Any] = field(default_factory=dict)
    history: list[Part] = field(default_factory=list)


@dataclass(frozen=True)
class _Index:
    format: Literal[1]
    samples: list[tuple[str, str, Count, Count, Count, Count, str]]


def index_rows(data: bytes) -> list[tuple[str, str, int, int, int, int, str]]:
    """The samples in an index file's bytes; ValueError says what is wrong with them."""
    try:
        return _adapter().validate_json(data, strict=True).samples
    except ValidationError as error:
        raise ValueError(why_bad(error, data)) from error


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[_Index]:
    return TypeAdapter(_Index)
