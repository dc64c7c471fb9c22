"""Reads a shard set, compares every shard with the manifest, and lists all faults.

    faults = verify("s3://bucket/oct")

A remote shard is copied to local scratch. Each process holds one at a time.
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
from retfound_dist.io.scratch import new_temporary_folder
from retfound_dist.records import json_reader
from shards.images.preparation import decode
from shards.ordered_map import available_cores, ordered_map
from shards.write.set_ownership import MARKER

SMALL_SET_BYTES = 100_000_000
"""Up to this size one process reads the set sooner than worker processes start."""


@dataclass(frozen=True)
class ShardCheck:
    """The result of checking one shard."""

    name: str
    faults: tuple[str, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class VerifyReport:
    """The result of checking a set."""

    faults: tuple[str, ...]
    """One line per fault; empty for a set without faults."""
    bad_shards: tuple[str, ...]
    """Names of the shards that have faults."""
    notes: tuple[str, ...] = ()
    """Remarks that are not faults."""


def verify(url: str, workers: int = 0, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Returns one line per fault of the set, none for a set without faults. 0 workers: one per core.

    ManifestError where there is no committed set.
    """
    return list(inspect_set(url, workers, progress).faults)


def inspect_set(
    url: str, workers: int = 0, progress: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Checks the set as `verify` does, and also names the bad shards."""
    # `counted=False`: a wrong count would raise here. Below it is one fault among the others.
    manifest = read_manifest(url, check_total=False)
    faults, notes = _set_faults(manifest)
    keys = Counter[str]()
    bad_shards: list[str] = []
    count = min(workers or _worker_count(manifest), len(manifest.shards))
    # One shard per task: shards are large, and several per task would leave some workers idle.
    results = ordered_map(partial(check_shard, url=url), manifest.shards, count, chunk=1)
    for number, shard_check in enumerate(results, start=1):
        faults += shard_check.faults
        bad_shards += [shard_check.name] if shard_check.faults else []
        keys.update(shard_check.keys)
        if progress:
            progress(number, len(manifest.shards))
    faults += [f"key {key} is in the set {n} times" for key, n in sorted(keys.items()) if n > 1]
    return VerifyReport(tuple(faults), tuple(bad_shards), tuple(notes))


def check_shard(shard: Shard, *, url: str) -> ShardCheck:
    """Checks size, sha256, index and every sample of one shard."""
    where = storage.join(url, shard.name)
    if not storage.exists(where):
        return ShardCheck(shard.name, (f"{shard.name} is missing",), ())
    with _local_copy(where) as path:
        info = storage.file_info(path)
        # A truncated tar is one fault. Reading on would give one for each missing sample.
        if info.bytes != shard.bytes:
            fault = f"{shard.name} has {info.bytes:,} bytes; the manifest says {shard.bytes:,}"
            return ShardCheck(shard.name, (fault,), ())
        faults = [] if info.sha256 == shard.sha256 else [f"{shard.name} differs from the manifest's sha256"]
        entries, index_faults = _read_index(url, shard)
        faults += index_faults
        faults += [f"{shard.name}: {fault}" for fault in _tar_faults(path, shard, entries)]
    return ShardCheck(shard.name, tuple(faults), tuple(entry.key for entry in entries or ()))


def _worker_count(manifest: Manifest) -> int:
    """One per core; for a small set this process alone."""
    return available_cores() if sum(shard.bytes for shard in manifest.shards) > SMALL_SET_BYTES else 1


def _set_faults(manifest: Manifest) -> tuple[list[str], list[str]]:
    """Returns the faults of the set as a whole, and notes about it."""
    faults, notes = [], []
    total = sum(shard.samples for shard in manifest.shards)
    if total != manifest.samples:
        faults.append(f"manifest.json says {manifest.samples:,} samples; its shards add up to {total:,}")
    listed = Counter(shard.name for shard in manifest.shards)
    faults += [f"{name} is in manifest.json {n} times" for name, n in listed.items() if n > 1]
    existing = storage.list_names(manifest.url)
    unlisted = [name for name in existing if name.endswith(".tar") and name not in listed]
    # --force and --append write new tars beside the shards of the existing set.
    if unlisted and MARKER in existing:
        notes.append(
            f"{len(unlisted)} tar files ({unlisted[0]}) belong to an unfinished pack, not to this set: "
            "the same pack command continues with them"
        )
    else:
        faults += [f"{name} is not in manifest.json" for name in unlisted]
    without_digest = sum(not shard.fields_sha256 for shard in manifest.shards)
    if without_digest:
        notes.append(
            f"labels and patients of {without_digest:,} of {len(manifest.shards):,} shards could not be "
            "compared with manifest.json: an older version packed them and recorded no digest of them"
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
    """Yields the faults of a tar: samples that differ from the index or cannot be read."""
    try:
        # `r:` reads uncompressed tars only; `r` would try to decompress a damaged one.
        with tarfile.open(path, mode="r:") as tar:
            members = {member.name: (member.offset_data, member.size) for member in tar}
    except (tarfile.TarError, EOFError, OSError) as error:
        yield f"is not a readable tar ({error})"
        return
    if len(members) != 2 * shard.samples:
        yield f"holds {len(members)} files instead of {2 * shard.samples} for {shard.samples} samples"
    fields_of_key: dict[str, dict[str, Any]] = {}
    with open(path, "rb") as file:
        for entry in entries or ():
            yield from _sample_faults(file, entry, members, fields_of_key)
    # The digest covers all samples, so an unreadable sample would cause a second fault here.
    if entries is not None and len(fields_of_key) == len(entries):
        yield from _field_faults(shard, fields_of_key)


def _sample_faults(
    file: IO[bytes],
    entry: Entry,
    members: dict[str, tuple[int, int]],
    fields_of_key: dict[str, dict[str, Any]],
) -> Iterator[str]:
    """Yields the faults of one sample; puts the fields of its JSON into `fields_of_key`."""
    image = (entry.image_offset, entry.image_bytes)
    fields = (entry.json_offset, entry.json_bytes)
    if (members.get(f"{entry.key}.{entry.extension}"), members.get(f"{entry.key}.json")) != (image, fields):
        yield f"{entry.key} is not at the place in the index"
        return
    try:
        data = _read_at(file, *image)
        shape = decode(data).shape[:2]
        fields_of_image = json_reader.parse(_read_at(file, *fields), PackedFields, f"{entry.key}.json", "")
        if shape != (fields_of_image["height"], fields_of_image["width"]):
            yield f"{entry.key} differs in size from its JSON"
        elif image_digest(data) != entry.image_sha256:
            yield f"{entry.key} differs from the sha256 in the index"
        fields_of_key[entry.key] = dict(fields_of_image)
    except RecordError as error:
        yield str(error)
    except DataError as error:
        yield f"{entry.key} {error}"
    except Exception as error:  # decoders raise any error on damaged bytes
        yield f"{entry.key} cannot be read ({error})"


def _field_faults(shard: Shard, fields_of_key: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Compares part, labels and patients in the samples with the manifest."""
    parts = Counter(fields.get("split") for fields in fields_of_key.values())
    for part, count in parts.items():
        if part != shard.split:
            expected = shard.split or "none"
            yield f"{count} of its samples say part {part or 'none'}; manifest.json says {expected}"
    digest = FieldsDigest()
    for key, fields in fields_of_key.items():
        digest.add(key, fields.get("split"), fields.get("label"), fields.get("patient"))
    if shard.fields_sha256 not in ("", digest.hexdigest()):
        yield "the part, label or patient of a sample differs from the digest in the manifest"


def _read_at(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


@contextmanager
def _local_copy(url: str) -> Iterator[str]:
    """Yields the path of a local shard, or of a copy of a remote one that is removed at the end."""
    if storage.is_local(url):
        yield storage.local_path(url)
        return
    # Copied, because a shard is read three times: for its hash, its members and its samples.
    with new_temporary_folder(prefix="retfound-verify-") as folder:
        path = f"{folder}/{storage.name(url)}"
        storage.get_file(url, path)
        yield path
