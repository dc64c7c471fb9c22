"""Reads a shard set: `manifest.json`, tar shards, and one index file for each shard.

    manifest.json   {"format": 1, "samples": N, "shards": [{"name", "samples", "bytes", "sha256",
                     "split", "index": {"name", "bytes", "sha256"}, "fields_sha256"}], "sources": {...},
                     "image": {...}, "skipped": [{"key", "origin", "reason"}], "classes": [...],
                     "recipe": {...}, "fingerprint"}
    oct-000000.tar  for each sample KEY.jpg (KEY.png, KEY.webp), then KEY.json
    oct-000000.idx  {"format": 1, "samples": [[key, extension, image offset, image bytes,
                     json offset, json bytes, image sha256], ...], ...}: where each sample lies in
                     the tar; of the sha256 of the image's bytes the first 16 hex digits

The manifest is written last: without it there is no set. Packing writes these files, the stream and the
evaluator read them. Shards of a set that replaced another one may be called `oct.2-000000.tar`. Sets packed
by older versions have no `fields_sha256`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from typing import Any

from retfound_dist.errors import ManifestError, RecordError, StorageError
from retfound_dist.formats import url_kinds
from retfound_dist.formats.shard_set_files import Index, ManifestFile
from retfound_dist.formats.shard_set_files import IndexFile as IndexFile
from retfound_dist.io import storage
from retfound_dist.records import json_reader, plain_names

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
"""Folder and column names in data sets -> the part that they mean."""
# A set that is being replaced stays readable until the new manifest is written. So the new shards need other
# names.
_GENERATION = re.compile(r"\.\d+(?=-\d{6}\.tar$)")
_PACK_AGAIN = "pack the set again, or restore this file from a copy"


@dataclass(frozen=True)
class Shard:
    """The manifest's entry of one tar shard."""

    name: str
    samples: int
    bytes: int
    sha256: str
    split: str | None
    index: IndexFile
    fields_sha256: str = ""
    """See `FieldsDigest`; empty in sets of older versions."""


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
    """Every label, sorted. A class's index is its position here."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """The settings that it was packed with."""
    fingerprint: str = ""
    """Hash of the settings and sources it was packed with. `content_identity.set_fingerprint` is that of its
    content.
    """
    suspects: dict[str, Any] = field(default_factory=dict)
    """Source -> suspicion -> {"images", "of", "first"}: pictures that are probably not B-scans."""
    history: tuple[dict[str, Any], ...] = ()
    """{"fingerprint", "shards", "recipe"} of each pack and append that made it, in order."""

    def first_shards(self, count: int) -> Manifest:
        """The set of the first `count` shards; 0: the whole set."""
        # Appending adds shards only at the end, so this is the set as it was when it had this many.
        if not count:
            return self
        if count > len(self.shards):
            raise ManifestError(
                f"data.first_shards={count}: {self.url} has {len(self.shards)} shards; "
                "give a smaller number, or 0 for all"
            )
        shards = self.shards[:count]
        return replace(self, shards=shards, samples=sum(shard.samples for shard in shards))

    def part(self, split: str) -> tuple[Shard, ...]:
        """The shards of `train`, `val` or `test`; of all parts (`all`); of all but val and test (`auto`).

        ManifestError where there are none.
        """
        parts = {shard.split for shard in self.shards}
        # `auto` is for pretraining: images that a later evaluation tests on must not be trained on.
        selected_parts = {"all": parts, "auto": parts - {"val", "test"}}.get(split, {split})
        shards = tuple(shard for shard in self.shards if shard.split in selected_parts)
        if not shards:
            part_names = sorted(part for part in parts if part)
            content_text = (
                f"it has {', '.join(part_names)}" if part_names else "it was packed without split.fractions"
            )
            raise ManifestError(
                f"{self.url} has no part {split!r}: {content_text}; "
                "set data.split=all, or pack it with a split"
            )
        return shards


@dataclass(frozen=True)
class Entry:
    """The place of one sample in its shard: offsets and lengths in bytes."""

    key: str
    extension: str
    image_offset: int
    image_bytes: int
    json_offset: int
    json_bytes: int
    image_sha256: str
    """See `image_digest`."""


def image_digest(data: bytes) -> str:
    """The digest of an image's bytes in an index: the first 16 hex digits of their sha256."""
    return hashlib.sha256(data).hexdigest()[:16]


def stable_name(shard: str) -> str:
    """A shard's name without the number of its replacement: `oct-000003.tar` for `oct.2-000003.tar`."""
    return _GENERATION.sub("", shard)


class FieldsDigest:
    """sha256 over key, part, label and patient of a shard's samples, in order. It shows an edit of these."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, key: str, split: object, label: object, patient: object) -> None:
        """Add the next sample."""
        self._digest.update(json.dumps([key, split, label, patient]).encode() + b"\n")

    def hexdigest(self) -> str:
        """The digest of all samples so far, in hex."""
        return self._digest.hexdigest()


def read_manifest(url: str, first: int = 0, *, check_total: bool = True) -> Manifest:
    """Read the manifest of the shard set at a URL, limited to its `first` shards (0: all).

    ManifestError where it is invalid. With `check_total=False` the total may differ from the sum of the
    shards: `verify` reports that together with all other faults.
    """
    where = storage.join(url, MANIFEST)
    try:
        if not storage.exists(where):
            raise ManifestError(url_kinds.wrong_kind_message(url, url_kinds.SHARDS))
        file = json_reader.read(where, ManifestFile, _PACK_AGAIN, format=FORMAT)
    except RecordError as error:
        raise ManifestError(str(error)) from error
    except StorageError as error:
        raise ManifestError(f"{url} is not a shard set that can be read: {error}") from error
    full_set = Manifest(
        url=url,
        samples=file.samples,
        shards=tuple(Shard(**vars(row)) for row in file.shards),
        sources={name: dict(source) for name, source in file.sources.items()},
        image=dict(file.image),
        skipped=tuple(map(dict, file.skipped)),
        classes=tuple(file.classes),
        recipe=file.recipe,
        fingerprint=file.fingerprint,
        suspects=file.suspects,
        history=tuple(map(dict, file.history)),
    )
    # The sum over the whole set, before it is limited: the total is that of all shards.
    total = sum(shard.samples for shard in full_set.shards)
    if check_total and total != full_set.samples:
        raise ManifestError(
            f"{where} has a total of {full_set.samples:,} samples, but its shards sum to {total:,}: one of "
            f"the counts was changed, which would change every batch; run retfound verify {url}"
        )
    return full_set.first_shards(first)


def read_index(url: str, shard: Shard) -> tuple[Entry, ...]:
    """Read a shard's index and check it against the manifest's sha256 and number of samples."""
    where = storage.join(url, shard.index.name)
    data = storage.read_bytes(where)
    if storage.bytes_info(data).sha256 != shard.index.sha256:
        raise ManifestError(f"{where} differs from the manifest's sha256: fetch or pack this shard again")
    return parse_index(data, shard, where)


def parse_index(data: bytes, shard: Shard, where: str) -> tuple[Entry, ...]:
    """The entries in the bytes of a shard's index file; `where`: its name in messages.

    ManifestError where their number differs from the manifest's, or where they are outside the shard.
    """
    try:
        rows = json_reader.parse_large(data, Index, where, _PACK_AGAIN, format=FORMAT).samples
    except RecordError as error:
        raise ManifestError(str(error)) from error
    check_count(shard, len(rows), where)
    entries = tuple(Entry(*row) for row in rows)
    # Keys become file names when samples are unpacked, cached or shown. There are few extensions, so each is
    # checked once.
    for name in (*(entry.key for entry in entries), *{entry.extension for entry in entries}):
        plain_names.checked_name(name, where, ManifestError)
    ends = (max(e.image_offset + e.image_bytes, e.json_offset + e.json_bytes) for e in entries)
    if max(ends, default=0) > shard.bytes:
        raise ManifestError(f"{where} lists samples beyond the end of {shard.name}; {_PACK_AGAIN}")
    return entries


def check_count(shard: Shard, indexed_count: int, index_url: str) -> None:
    """ManifestError where a shard's index has another number of samples than the manifest."""
    if indexed_count != shard.samples:
        raise ManifestError(
            f"{index_url} has {indexed_count:,} samples, but the manifest has {shard.samples:,} for "
            f"{shard.name}: one of the counts was changed, which would change every batch; {_PACK_AGAIN}"
        )
