"""Reads the committed shards at a set's URL. A pack that was killed continues after them.

    oct-000000.idx  the shard's index, written after its tar: it commits the shard. Beside the offsets of the
                    samples it holds {"shard", "mark", "next", "skipped", "statistics", "digests", "looks",
                    "suspects", "source_files", "source_pixels"}:
                    `shard` is the entry for the manifest; `mark` is a digest of everything that determines
                    the shard's bytes (pack_plan.PlanDigests); `next` is the place in the plan where the
                    next shard begins; the digests and difference hashes (`looks`) identify its pictures

A killed pack leaves consecutive shards with their indexes, at most one tar without an index, and a few `.tmp`
files (set_ownership.py has the names).
"""

from __future__ import annotations

from collections.abc import Collection, Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.errors import DataError, FormatError, ManifestError, RecordError
from retfound_dist.formats import url_kinds
from retfound_dist.formats.shard_set import (
    FORMAT,
    MANIFEST,
    IndexFile,
    Manifest,
    Shard,
    read_manifest,
)
from retfound_dist.images.image_digests import SOURCE_FILES, SOURCE_PIXELS, from_hex
from retfound_dist.io import storage
from retfound_dist.records import json_reader
from shards.images.near_duplicates import HASH_BYTES
from shards.planning.pack_plan import PackPlan, PlanDigests
from shards.write.packed_sample import Skipped
from shards.write.set_ownership import (
    MARKER,
    PAGE_FILES,
    ShardNames,
    print_notice,
    remove_leftovers,
    shard_files_at,
    shard_files_of,
)
from shards.write.set_records import IndexRecord
from shards.write.statistics import Statistics

SOURCE_COLUMNS = (SOURCE_FILES, SOURCE_PIXELS)
_REMEDY = "an older version of this software may have packed it: pack the set again"
_OTHER_KINDS = (
    *(url_kinds.RUN, url_kinds.CHECKPOINT, url_kinds.UNCOMMITTED),
    *(url_kinds.EVALUATION, url_kinds.COMPARISON, url_kinds.MODEL_FOLDER),
)


Suspects = dict[str, dict[str, tuple[int, list[str]]]]
"""Source -> kind of suspect -> (images, the first keys); see shards.images.suspects."""


def _no_digests() -> NDArray[np.uint64]:
    return np.zeros(0, np.uint64)


@dataclass(frozen=True)
class CommittedShard:
    """One complete shard at the URL."""

    shard: Shard
    next_place: int
    """Place in the plan of the first scan after this shard."""
    skipped: tuple[Skipped, ...]
    """Scans that were left out between the shard before and `next_place`."""
    statistics: Statistics
    key_lines: str = ""
    """The samples' keys, one per line: a list of millions of strings takes much more memory."""
    digests: NDArray[np.uint64] = field(default_factory=_no_digests)
    """One digest of the pixels per sample (retfound_dist.images.image_digests)."""
    difference_hashes: bytes = b""
    """The difference hashes of all samples, one after the other."""
    suspects: Suspects = field(default_factory=dict)
    """Pictures that are probably not B-scans."""
    source_digests: NDArray[np.uint64] | None = None
    """(samples, 2) digests of the source's file and pixels; None in an index of an older version."""

    @property
    def keys(self) -> list[str]:
        """The samples' keys, in order."""
        return self.key_lines.split("\n") if self.key_lines else []

    def to_tree(self, plan_digest: str) -> dict[str, Any]:
        """Returns the fields of an index file, without its samples."""
        sources = [] if self.source_digests is None else self.source_digests.T.tolist()
        return {
            "shard": shard_tree(self.shard, index=False),
            "mark": plan_digest,
            "next": self.next_place,
            "skipped": [skip.to_row() for skip in self.skipped],
            "statistics": self.statistics.to_tree(),
            "digests": [f"{digest:016x}" for digest in self.digests.tolist()],
            "looks": self.difference_hashes.hex(),
            **({"suspects": self.suspects} if self.suspects else {}),
            **{
                name: [f"{digest:016x}" if digest else "" for digest in column]
                for name, column in zip(SOURCE_COLUMNS, sources, strict=False)
            },
        }


def shard_tree(shard: Shard, *, index: bool = True) -> dict[str, Any]:
    """Returns a shard's entry in the manifest."""
    tree: dict[str, Any] = {
        "name": shard.name,
        "samples": shard.samples,
        "bytes": shard.bytes,
        "sha256": shard.sha256,
        "split": shard.split,
    }
    if shard.fields_sha256:
        tree["fields_sha256"] = shard.fields_sha256
    if index:
        tree["index"] = {"name": shard.index.name, "bytes": shard.index.bytes, "sha256": shard.index.sha256}
    return tree


def read_existing(url: str, *, replacing: bool = False) -> Manifest | None:
    """Returns the manifest at the URL, or None where there is none; DataError for files of unknown origin.

    With `replacing`, a damaged manifest beside shards of this software counts as none.
    """
    names = storage.list_names(url)
    if MANIFEST in names:
        try:
            return read_manifest(url)
        except ManifestError as error:
            if not _is_damaged(error):
                raise
            # Only beside shards of this software: another program may also have a manifest.json.
            if replacing and shard_files_at(url):
                return None
            raise ManifestError(f"{error}; --force replaces the set") from error
    kind = url_kinds.kind_at(url)
    if kind in _OTHER_KINDS:
        raise DataError(f"out.url={url} is {kind}: choose another folder for the shard set")
    # A commit writes files of these names. It would replace the user's own file.
    foreign_files = [entry for entry in PAGE_FILES if entry in names and MARKER not in names]
    if foreign_files:
        raise DataError(
            f"{storage.join(url, foreign_files[0])} exists, but no manifest: another program wrote it; "
            "choose another out.url, or remove the file"
        )
    tars = [entry for entry in names if entry.endswith(".tar")]
    if tars and MARKER not in names:
        raise DataError(
            f"{url} holds {len(tars)} tar files without a manifest ({tars[0]}): another program wrote them; "
            "choose another out.url, or remove them"
        )
    return None


def _is_damaged(error: ManifestError) -> bool:
    """Whether a manifest is damaged. A later format and an error of the store are no damage."""
    cause = error.__cause__
    return cause is None or (isinstance(cause, RecordError) and not isinstance(cause, FormatError))


def recover_shards(
    url: str, shard_names: ShardNames, plan: PackPlan, keep: Collection[str] = ()
) -> list[CommittedShard]:
    """Returns the shards of this plan that an interrupted pack has committed; removes its other files.

    Where the source has lost or gained files since, only the shards before the first change are returned.
    A damaged index is reported, and only the shards before it are returned. `keep`: files of an existing
    set, which are not touched. FormatError where a later version has packed here: its shards stay.
    """
    names = set(storage.list_names(url))
    recovered: list[CommittedShard] = []
    plan_digests = PlanDigests(plan)
    try:
        while shard := _read_plan_record(url, shard_names.stem(len(recovered)), names, plan_digests):
            recovered.append(shard)
    # A later version can read this shard. Packing over it would destroy it.
    except FormatError:
        raise
    except RecordError as error:
        again = sum(
            f"{shard_names.stem(number)}.idx" in names for number in range(len(recovered), len(names))
        )
        print_notice(f"{error}; packing again from this shard on: {again:,} shards")
    remove_leftovers(url, {*keep, *shard_files_of([committed.shard for committed in recovered])})
    # A killed upload leaves parts that no listing shows and that cost money until they are removed.
    storage.abort_uploads(url)
    return recovered


def read_record(url: str, shard: Shard) -> CommittedShard:
    """Returns a shard of a finished set from its index; DataError where the index is damaged."""
    where = storage.join(url, shard.index.name)
    data = storage.read_bytes(where)
    if storage.bytes_info(data).sha256 != shard.index.sha256:
        raise DataError(
            f"{where} differs from the manifest: repair it with retfound verify {url} --repair CONFIG"
        )
    try:
        return _to_committed(_parse_record(data, where, _REMEDY), shard.index, where, _REMEDY)
    except RecordError as error:
        raise DataError(str(error)) from error


def _parse_record(data: bytes, where: str, remedy: str) -> IndexRecord:
    """Parses an index; RecordError where it is damaged or a list lacks entries for some samples."""
    record = json_reader.parse_large(data, IndexRecord, where, remedy, format=FORMAT)
    lists: dict[str, Sized | None] = {
        "samples": record.samples,
        "digests": record.digests,
        SOURCE_FILES: record.source_files,
        SOURCE_PIXELS: record.source_pixels,
    }
    for name, entries in lists.items():
        if entries is not None and len(entries) != record.shard.samples:
            fault = f"{name} has {len(entries):,} entries for a shard of {record.shard.samples:,} samples"
            raise json_reader.damage_error(where, fault, remedy)
    return record


def _to_committed(record: IndexRecord, index: IndexFile, where: str, remedy: str) -> CommittedShard:
    """Returns the shard of an index; RecordError where its digests are damaged."""
    try:
        digests, source_digests = from_hex(record.digests), _source_digests(record)
        difference_hashes = _difference_hashes(record)
    except ValueError as error:
        raise json_reader.damage_error(where, str(error), remedy) from error
    return CommittedShard(
        shard=Shard(**vars(record.shard), index=index),
        next_place=record.next,
        skipped=tuple(Skipped(**row) for row in record.skipped),
        statistics=Statistics.from_tree(record.statistics),
        key_lines="\n".join(row[0] for row in record.samples),
        digests=digests,
        difference_hashes=difference_hashes,
        suspects=record.suspects,
        source_digests=source_digests,
    )


def _difference_hashes(record: IndexRecord) -> bytes:
    fault = f"looks is not {2 * HASH_BYTES} hex digits a sample"
    try:
        hashes = bytes.fromhex(record.looks)
    except ValueError as error:
        raise ValueError(fault) from error
    if len(hashes) != HASH_BYTES * record.shard.samples:
        raise ValueError(fault)
    return hashes


def _source_digests(record: IndexRecord) -> NDArray[np.uint64] | None:
    if record.source_files is None or record.source_pixels is None:
        return None
    return np.stack([from_hex(record.source_files), from_hex(record.source_pixels)], axis=1)


def _read_plan_record(
    url: str, stem: str, names: set[str], plan_digests: PlanDigests
) -> CommittedShard | None:
    """Returns a shard of this plan if its tar is complete, else None; RecordError if the index is damaged."""
    tar, index = f"{stem}.tar", f"{stem}.idx"
    if tar not in names or index not in names:
        return None
    where = storage.join(url, index)
    data = storage.read_bytes(where)
    record = _parse_record(data, where, "")
    # Comparing the size is enough, because a tar is uploaded in one step. Hashing would read the whole set at
    # every restart.
    is_complete = record.shard.bytes == storage.size(storage.join(url, tar))
    if not is_complete or record.mark != plan_digests.at(record.next):
        return None
    # From the bytes at the URL: the manifest names the index by this size and digest.
    info = storage.bytes_info(data)
    return _to_committed(record, IndexFile(index, info.bytes, info.sha256), where, "")
