"""A shard set as it stands at a URL: `manifest.json`, tar shards and one index file a shard.

    manifest.json   {"format": 1, "samples": N, "shards": [{"name", "samples", "bytes", "sha256",
                     "split", "index": {"name", "bytes", "sha256"}}], "sources": {...},
                     "image": {...}, "skipped": [{"key", "origin", "reason"}], "classes": [...],
                     "recipe": {...}, "fingerprint"}
    oct-000000.tar  for each sample KEY.jpg (KEY.png, KEY.webp), then KEY.json
    oct-000000.idx  {"format": 1, "samples": [[key, extension, image offset, image bytes,
                     json offset, json bytes, image sha256], ...], ...}: where each sample lies in
                     the tar; of the sha256 of the image's bytes the first 16 hex digits

The manifest is written last: without it there is no set. Packing writes these, the stream and the
evaluator read them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

from retfound_dist import kinds, storage
from retfound_dist.errors import ManifestError, StorageError

FORMAT = 1
MANIFEST = "manifest.json"
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Folder and column names of the parts, as data sets spell them."""


@dataclass(frozen=True)
class IndexFile:
    """A shard's index file."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Shard:
    """One tar shard as the manifest describes it."""

    name: str
    samples: int
    bytes: int
    sha256: str
    split: str | None
    index: IndexFile


@dataclass(frozen=True)
class Manifest:
    """A committed shard set."""

    url: str
    samples: int
    shards: tuple[Shard, ...]
    sources: dict[str, Any]
    image: dict[str, Any]
    skipped: tuple[dict[str, Any], ...]
    classes: tuple[str, ...] = ()
    """Every label, sorted: a class's index is its place here."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """The settings it was packed with."""
    fingerprint: str = ""
    """Of the settings and sources it was packed with; `identity.set_fingerprint` is that of its content."""
    suspects: dict[str, Any] = field(default_factory=dict)
    """Source -> suspicion -> {"images", "of", "first"}: pictures that are probably no B-scans."""
    history: tuple[dict[str, Any], ...] = ()
    """{"fingerprint", "shards", "recipe"} of each pack and append that made it, in order."""

    def first(self, count: int) -> Manifest:
        """The set as it was when it had so many shards: appending only adds behind; 0: all of it."""
        if not count:
            return self
        if count > len(self.shards):
            raise ManifestError(
                f"data.first_shards={count}: {self.url} has {len(self.shards)} shards; give 0 for all"
            )
        shards = self.shards[:count]
        return replace(self, shards=shards, samples=sum(shard.samples for shard in shards))

    def part(self, split: str) -> tuple[Shard, ...]:
        """The shards of `train`, `val` or `test`, of `all`, or of all but val and test (`auto`).

        ManifestError when there are none.
        """
        parts = {shard.split for shard in self.shards}
        wanted = {"all": parts, "auto": parts - {"val", "test"}}.get(split, {split})
        found = tuple(shard for shard in self.shards if shard.split in wanted)
        if not found:
            named = sorted(part for part in parts if part)
            held = f"it holds {', '.join(named)}" if named else "it was packed without split.fractions"
            raise ManifestError(
                f"{self.url} has no part {split!r}: {held}; set data.split=all or pack it with a split"
            )
        return found


@dataclass(frozen=True)
class Entry:
    """Where one sample lies in its shard: offsets and lengths in bytes."""

    key: str
    extension: str
    image_offset: int
    image_bytes: int
    json_offset: int
    json_bytes: int
    image_sha256: str
    """See `image_digest`."""


def image_digest(data: bytes) -> str:
    """What an index holds of an image's bytes: the first 16 hex digits of their sha256."""
    return hashlib.sha256(data).hexdigest()[:16]


def read_manifest(url: str, first: int = 0) -> Manifest:
    """The manifest of the shard set at a URL, of its `first` shards alone (0: all of them).

    ManifestError says what is wrong with it.
    """
    where = storage.join(url, MANIFEST)
    try:
        if not storage.exists(where):
            raise ManifestError(kinds.refusal(url, kinds.SHARDS))
        tree = storage.read_json(where)
    except StorageError as error:
        raise ManifestError(f"{url} is not a shard set that can be read: {error}") from error
    try:
        if tree["format"] != FORMAT:
            raise ManifestError(
                f"{where} has format {tree['format']!r}, this version reads format {FORMAT}: "
                "read it with the version that packed it, or pack it again"
            )
        whole = Manifest(
            url=url,
            samples=int(tree["samples"]),
            shards=tuple(_shard(s) for s in tree["shards"]),
            sources=dict(tree["sources"]),
            image=dict(tree["image"]),
            skipped=tuple(tree["skipped"]),
            classes=tuple(tree.get("classes", ())),
            recipe=dict(tree.get("recipe", {})),
            fingerprint=str(tree.get("fingerprint", "")),
            suspects=dict(tree.get("suspects", {})),
            history=tuple(tree.get("history", ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        fault = f"{type(error).__name__}: {error}"
        raise ManifestError(f"{where} is not a shard manifest ({fault}); pack the set again") from error
    return whole.first(first)


def read_index(url: str, shard: Shard) -> tuple[Entry, ...]:
    """A shard's index, checked against the manifest's sha256."""
    where = storage.join(url, shard.index.name)
    data = storage.read_bytes(where)
    if storage.bytes_info(data).sha256 != shard.index.sha256:
        raise ManifestError(f"{where} differs from the manifest's sha256: fetch or pack this shard again")
    return parse_index(data)


def parse_index(data: bytes) -> tuple[Entry, ...]:
    """The entries in an index file's bytes."""
    try:
        return tuple(Entry(*row) for row in json.loads(data)["samples"])
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError("a shard's index is of an older version of this software: pack again") from error


def _shard(tree: dict[str, Any]) -> Shard:
    return Shard(
        name=str(tree["name"]),
        samples=int(tree["samples"]),
        bytes=int(tree["bytes"]),
        sha256=str(tree["sha256"]),
        split=tree.get("split"),
        index=IndexFile(**tree["index"]),
    )
