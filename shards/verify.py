"""Reads a shard set back, compares every shard with the manifest, and names all faults.

    faults = verify("s3://bucket/oct")

A remote shard is fetched to local scratch, one at a time for each process.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

from retfound_dist.errors import DataError, ManifestError, RecordError, StorageError
from retfound_dist.formats.shard_set import (
    Entry,
    FieldsDigest,
    Manifest,
    Shard,
    image_digest,
    parse_index,
    read_manifest,
)
from retfound_dist.formats.shard_set_files import PackedFields
from retfound_dist.io import storage
from retfound_dist.io.scratch import temporary
from retfound_dist.records import json_reader
from shards.images.preparation import decode
from shards.ordered_map import available_cores, ordered_map
from shards.write.set_ownership import MARKER

SMALL_SET = 100_000_000
"""Bytes."""


@dataclass(frozen=True)
class ShardCheck:
    """What reading one shard has found."""

    name: str
    faults: tuple[str, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What reading a set has found."""

    faults: tuple[str, ...]
    """One line each; empty for a sound set."""
    bad: tuple[str, ...]
    """Names of the shards that have faults."""
    notes: tuple[str, ...] = ()
    """What is no fault, and a person should know."""


def verify(url: str, workers: int = 0, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Every fault of the set in one line each, empty for a sound set; 0 workers: one for each core.

    ManifestError where there is no committed set.
    """
    return list(inspect_set(url, workers, progress).faults)


def inspect_set(url: str, workers: int = 0, progress: Callable[[int, int], None] | None = None) -> Report:
    """`verify` with the names of the bad shards."""
    # Not counted: a wrong count would end the reading here. Below it is one fault among all others.
    manifest = read_manifest(url, counted=False)
    faults, notes = _set_faults(manifest)
    keys = Counter[str]()
    bad: list[str] = []
    count = min(workers or _wanted_workers(manifest), len(manifest.shards))
    # One shard a task: they are large, and several in one task would leave the other workers idle.
    results = ordered_map(partial(check_shard, url=url), manifest.shards, count, chunk=1)
    for number, checked in enumerate(results, start=1):
        faults += checked.faults
        bad += [checked.name] if checked.faults else []
        keys.update(checked.keys)
        if progress:
            progress(number, len(manifest.shards))
    faults += [f"key {key} is in the set {n} times" for key, n in sorted(keys.items()) if n > 1]
    return Report(tuple(faults), tuple(bad), tuple(notes))


def check_shard(shard: Shard, *, url: str) -> ShardCheck:
    """Size, sha256, index and every sample of one shard."""
    where = storage.join(url, shard.name)
    if not storage.exists(where):
        return ShardCheck(shard.name, (f"{shard.name} is missing",), ())
    with _local_copy(where) as path:
        info = storage.file_info(path)
        # One fault for a tar that is cut short, not one for each sample behind the cut.
        if info.bytes != shard.bytes:
            fault = f"{shard.name} has {info.bytes:,} bytes, {shard.bytes:,} in the manifest"
            return ShardCheck(shard.name, (fault,), ())
        faults = [] if info.sha256 == shard.sha256 else [f"{shard.name} differs from the manifest's sha256"]
        entries, index_faults = _read_index(url, shard)
        faults += index_faults
        faults += [f"{shard.name}: {fault}" for fault in _tar_faults(path, shard, entries)]
    return ShardCheck(shard.name, tuple(faults), tuple(entry.key for entry in entries or ()))


def _wanted_workers(manifest: Manifest) -> int:
    """One for each core, or this process alone for a set that is read sooner than processes start."""
    return available_cores() if sum(shard.bytes for shard in manifest.shards) > SMALL_SET else 1


def _set_faults(manifest: Manifest) -> tuple[list[str], list[str]]:
    """Faults of the set as a whole, and notes about it."""
    faults, notes = [], []
    total = sum(shard.samples for shard in manifest.shards)
    if total != manifest.samples:
        faults.append(f"manifest.json says {manifest.samples:,} samples, its shards sum to {total:,}")
    named = Counter(shard.name for shard in manifest.shards)
    faults += [f"{name} is in manifest.json {n} times" for name, n in named.items() if n > 1]
    there = storage.list_names(manifest.url)
    strange = [name for name in there if name.endswith(".tar") and name not in named]
    # --force packs the new set beside the old one, whose shards these tars are not.
    if strange and MARKER in there:
        notes.append(
            f"{len(strange)} tar files ({strange[0]}) are of a pack that was not finished: they are no part "
            "of the set; the same pack command goes on with them"
        )
    else:
        faults += [f"{name} is not in manifest.json" for name in strange]
    old = sum(not shard.fields_sha256 for shard in manifest.shards)
    if old:
        notes.append(
            f"labels and patients of {old:,} of {len(manifest.shards):,} shards could not be held against "
            "manifest.json: an older version packed them, without a digest of these"
        )
    return faults, notes


def _read_index(url: str, shard: Shard) -> tuple[tuple[Entry, ...] | None, list[str]]:
    try:
        data = storage.read_bytes(storage.join(url, shard.index.name))
    except StorageError:
        return None, [f"{shard.index.name} is missing or cannot be read"]
    if storage.bytes_info(data).sha256 != shard.index.sha256:
        return None, [f"{shard.index.name} differs from the manifest's sha256"]
    try:
        return parse_index(data, shard, shard.index.name), []
    except ManifestError as error:
        return None, [str(error)]


def _tar_faults(path: str, shard: Shard, entries: tuple[Entry, ...] | None) -> Iterator[str]:
    """Every sample of a tar that is not as its index says, or cannot be read."""
    try:
        # `r:` reads plain tars alone; `r` would try to decompress damaged ones.
        with tarfile.open(path, mode="r:") as tar:
            members = {member.name: (member.offset_data, member.size) for member in tar}
    except (tarfile.TarError, EOFError, OSError) as error:
        yield f"is not a readable tar ({error})"
        return
    if len(members) != 2 * shard.samples:
        yield f"holds {len(members)} files, {shard.samples} samples have {2 * shard.samples}"
    fields_of_key: dict[str, dict[str, Any]] = {}
    with open(path, "rb") as file:
        for entry in entries or ():
            yield from _sample_faults(file, entry, members, fields_of_key)
    # The digest is of all samples: where one could not be read it would be a second fault for one cause.
    if entries is not None and len(fields_of_key) == len(entries):
        yield from _told_faults(shard, fields_of_key)


def _sample_faults(
    file: IO[bytes],
    entry: Entry,
    members: dict[str, tuple[int, int]],
    fields_of_key: dict[str, dict[str, Any]],
) -> Iterator[str]:
    """What is wrong with one sample; its JSON goes into `fields_of_key`, by its key."""
    image = (entry.image_offset, entry.image_bytes)
    fields = (entry.json_offset, entry.json_bytes)
    if (members.get(f"{entry.key}.{entry.extension}"), members.get(f"{entry.key}.json")) != (image, fields):
        yield f"{entry.key} is not where the index says"
        return
    try:
        data = _read_at(file, *image)
        shape = decode(data).shape[:2]
        known = json_reader.parse(_read_at(file, *fields), PackedFields, f"{entry.key}.json", "")
        if shape != (known["height"], known["width"]):
            yield f"{entry.key} is not of the size its JSON says"
        elif image_digest(data) != entry.image_sha256:
            yield f"{entry.key} differs from the sha256 in the index"
        fields_of_key[entry.key] = dict(known)
    except RecordError as error:
        yield str(error)
    except DataError as error:
        yield f"{entry.key} {error}"
    except Exception as error:  # damaged bytes make decoders raise anything
        yield f"{entry.key} cannot be read ({error})"


def _told_faults(shard: Shard, fields_of_key: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Compares part, labels and patients in the samples with the manifest."""
    parts = Counter(known.get("split") for known in fields_of_key.values())
    for part, count in parts.items():
        if part != shard.split:
            yield f"{count} of its samples say part {_spelled(part)}, manifest.json {_spelled(shard.split)}"
    digest = FieldsDigest()
    for key, known in fields_of_key.items():
        digest.add(key, known.get("split"), known.get("label"), known.get("patient"))
    if shard.fields_sha256 not in ("", digest.hex()):
        yield "the part, label or patient of a sample differs from the manifest's digest of them"


def _spelled(part: object) -> str:
    return "none" if part is None else str(part)


def _read_at(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


@contextmanager
def _local_copy(url: str) -> Iterator[str]:
    """The path of a local shard, or of a copy of a remote one that goes when the block ends."""
    if storage.is_local(url):
        yield storage.local_path(url)
        return
    # A shard is read three times: for its hash, its members and its samples.
    with temporary(prefix="retfound-verify-") as folder:
        path = f"{folder}/{storage.name(url)}"
        storage.get_file(url, path)
        yield path
