"""Reads the committed shards at a set's URL and their records, from which packing continues after a kill.

    oct-000000.idx  written after its tar: the shard is committed. Beside the samples' places it holds
                    {"shard", "mark", "next", "skipped", "statistics", "digests", "looks", "suspects",
                    "source_files", "source_pixels"}: what the manifest will say of it; the mark, a
                    digest of all that its bytes follow from (pack_plan.Marks); the place in the plan
                    where the next shard begins; and digests by which its pictures are recognised

A killed pack leaves shards whose records follow on one another, at most one tar without a record, and
at most a few `.tmp` files beside their targets (set_ownership.py has the names).
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
from shards.images.near_duplicates import LOOK_BYTES
from shards.planning.pack_plan import Marks, PackPlan
from shards.write.packed_sample import Skipped
from shards.write.set_ownership import (
    BESIDE,
    MARKER,
    ShardNames,
    files_of,
    print_notice,
    remove_leftovers,
    set_files_at,
)
from shards.write.set_records import Record
from shards.write.statistics import Statistics

SOURCES = (SOURCE_FILES, SOURCE_PIXELS)
_REMEDY = "an older version of this software may have packed it: pack the set again"
_OTHERS = (
    *(url_kinds.RUN, url_kinds.CHECKPOINT, url_kinds.UNCOMMITTED),
    *(url_kinds.EVALUATION, url_kinds.COMPARISON, url_kinds.MODEL_FOLDER),
)


Suspects = dict[str, dict[str, tuple[int, list[str]]]]
"""Source -> suspicion -> (images, the first keys); see shards.images.suspects."""


def _no_digests() -> NDArray[np.uint64]:
    return np.zeros(0, np.uint64)


@dataclass(frozen=True)
class CommittedShard:
    """One whole shard at the URL."""

    shard: Shard
    next: int
    """Place in the plan of the first scan that no shard up to this one has used."""
    skipped: tuple[Skipped, ...]
    """Scans kept out on the way to `next`."""
    statistics: Statistics
    names: str = ""
    """The samples' keys, a line each: a set of millions holds them in a few objects."""
    digests: NDArray[np.uint64] = field(default_factory=_no_digests)
    """Of each sample's pixels (retfound_dist.images.image_digests)."""
    looks: bytes = b""
    """Of each sample, one after the other."""
    suspects: Suspects = field(default_factory=dict)
    """Pictures that are probably no B-scan."""
    sources: NDArray[np.uint64] | None = None
    """(samples, 2) of each source's file and pixels; None in an index from before they were kept."""

    @property
    def keys(self) -> list[str]:
        """The samples' keys, in order."""
        return self.names.split("\n") if self.names else []

    def to_tree(self, mark: str) -> dict[str, Any]:
        """The fields of an index file, without its samples."""
        sources = [] if self.sources is None else self.sources.T.tolist()
        return {
            "shard": shard_tree(self.shard, index=False),
            "mark": mark,
            "next": self.next,
            "skipped": [skip.row() for skip in self.skipped],
            "statistics": self.statistics.to_tree(),
            "digests": [f"{digest:016x}" for digest in self.digests.tolist()],
            "looks": self.looks.hex(),
            **({"suspects": self.suspects} if self.suspects else {}),
            **{
                name: [f"{digest:016x}" if digest else "" for digest in column]
                for name, column in zip(SOURCES, sources, strict=False)
            },
        }


def shard_tree(shard: Shard, *, index: bool = True) -> dict[str, Any]:
    """A shard as the manifest names it."""
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


def read_existing(url: str, *, replaced: bool = False) -> Manifest | None:
    """The manifest at the URL, None where there is none yet; DataError for shards of unknown origin.

    With `replaced`, a damaged manifest of ours counts as none.
    """
    names = storage.list_names(url)
    if MANIFEST in names:
        try:
            return read_manifest(url)
        except ManifestError as error:
            if not _is_damaged(error):
                raise
            # Only where shards of this software stand: another program may call its file manifest.json too.
            if replaced and set_files_at(url):
                return None
            raise ManifestError(f"{error}; --force replaces it") from error
    kind = url_kinds.kind_at(url)
    if kind in _OTHERS:
        raise DataError(f"out.url={url} is {kind}: give the shard set a folder of its own")
    # A commit writes these names, and would replace somebody's own file.
    strange = [entry for entry in BESIDE if entry in names and MARKER not in names]
    if strange:
        raise DataError(
            f"{storage.join(url, strange[0])} is there without a manifest, so this command did not write it: "
            "choose another out.url, or remove it"
        )
    tars = [entry for entry in names if entry.endswith(".tar")]
    if tars and MARKER not in names:
        raise DataError(
            f"{url} holds {len(tars)} tar files without a manifest ({tars[0]}), which this command did not "
            "write: choose another out.url, or remove them"
        )
    return None


def _is_damaged(error: ManifestError) -> bool:
    """Whether a manifest is damaged: not of a later format, and no trouble of the store."""
    cause = error.__cause__
    return cause is None or (isinstance(cause, RecordError) and not isinstance(cause, FormatError))


def recover_shards(
    url: str, series: ShardNames, plan: PackPlan, keep: Collection[str] = ()
) -> list[CommittedShard]:
    """The shards of this plan that an interrupted pack has committed; removes its other left-overs.

    Where the source has lost or gained files since, the shards before the first change are kept; before a
    damaged record too, which is said. `keep`: files of the set that stands there, which nobody touches.
    FormatError where a later version has packed here: its shards are left alone.
    """
    names = set(storage.list_names(url))
    recovered: list[CommittedShard] = []
    marks = Marks(plan)
    try:
        while shard := _read_record(url, series.stem(len(recovered)), names, marks):
            recovered.append(shard)
    # A later version's shard is not damaged: packing over it would destroy what that version can read.
    except FormatError:
        raise
    except RecordError as error:
        again = sum(f"{series.stem(number)}.idx" in names for number in range(len(recovered), len(names)))
        print_notice(f"{error}; shards that are packed again from there on: {again:,}")
    remove_leftovers(url, {*keep, *files_of([done.shard for done in recovered])})
    # Parts of a killed upload are in no listing, and paid for until they are dropped.
    storage.abort_uploads(url)
    return recovered


def read_record(url: str, shard: Shard) -> CommittedShard:
    """The record of a shard of a finished set; DataError where it is not whole."""
    where = storage.join(url, shard.index.name)
    data = storage.read_bytes(where)
    if storage.bytes_info(data).sha256 != shard.index.sha256:
        raise DataError(f"{where} differs from the manifest: run retfound verify {url} --repair first")
    try:
        return _committed(_record(data, where, _REMEDY), shard.index, where, _REMEDY)
    except RecordError as error:
        raise DataError(str(error)) from error


def _record(data: bytes, where: str, remedy: str) -> Record:
    """Parses an index; RecordError where it is damaged or a list has not one entry for each sample."""
    record = json_reader.parse_large(data, Record, where, remedy, format=FORMAT)
    lists: dict[str, Sized | None] = {
        "samples": record.samples,
        "digests": record.digests,
        SOURCE_FILES: record.source_files,
        SOURCE_PIXELS: record.source_pixels,
    }
    for name, entries in lists.items():
        if entries is not None and len(entries) != record.shard.samples:
            why = f"{name} has {len(entries):,} entries, its shard {record.shard.samples:,} samples"
            raise json_reader.damaged(where, why, remedy)
    return record


def _committed(record: Record, index: IndexFile, where: str, remedy: str) -> CommittedShard:
    try:
        digests, sources, looks = from_hex(record.digests), _sources(record), _looks(record)
    except ValueError as error:
        raise json_reader.damaged(where, str(error), remedy) from error
    return CommittedShard(
        shard=Shard(**vars(record.shard), index=index),
        next=record.next,
        skipped=tuple(Skipped(**row) for row in record.skipped),
        statistics=Statistics.from_tree(record.statistics),
        names="\n".join(row[0] for row in record.samples),
        digests=digests,
        looks=looks,
        suspects=record.suspects,
        sources=sources,
    )


def _looks(record: Record) -> bytes:
    why = f"looks is not {2 * LOOK_BYTES} hex digits a sample"
    try:
        looks = bytes.fromhex(record.looks)
    except ValueError as error:
        raise ValueError(why) from error
    if len(looks) != LOOK_BYTES * record.shard.samples:
        raise ValueError(why)
    return looks


def _sources(record: Record) -> NDArray[np.uint64] | None:
    if record.source_files is None or record.source_pixels is None:
        return None
    return np.stack([from_hex(record.source_files), from_hex(record.source_pixels)], axis=1)


def _read_record(url: str, stem: str, names: set[str], marks: Marks) -> CommittedShard | None:
    """The record of a shard of this plan whose tar is there in full, else None; RecordError for damage."""
    tar, index = f"{stem}.tar", f"{stem}.idx"
    if tar not in names or index not in names:
        return None
    where = storage.join(url, index)
    data = storage.read_bytes(where)
    record = _record(data, where, "")
    # The size is enough: a tar is put whole. Hashing would read the whole set at every restart.
    is_whole = record.shard.bytes == storage.size(storage.join(url, tar))
    if not is_whole or record.mark != marks.at(record.next):
        return None
    # The manifest will name the index by these, so they are taken from the bytes at the URL.
    info = storage.bytes_info(data)
    return _committed(record, IndexFile(index, info.bytes, info.sha256), where, "")
