"""Rebuilds bad shards of a set from its sources, to exactly the bytes that the manifest names.

The manifest says how many samples each shard holds and which scans were left out. The plan is made again
from the same sources and settings and says the rest. A rebuilt shard is written only where its hash is
the manifest's: a source that has changed meanwhile is an error.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from retfound_dist.config.loading import differences
from retfound_dist.config.schema import PackConfig
from retfound_dist.errors import DataError
from retfound_dist.formats.shard_set import IndexFile, Manifest, Shard, read_manifest
from retfound_dist.io import storage, verified_files
from retfound_dist.io.scratch import Scratch
from shards.images.scan import Scan
from shards.pack import other_secret
from shards.planning.pack_plan import Marks, PackPlan
from shards.write.packed_sample import PackedSample, Skipped, make_sample
from shards.write.set_ownership import set_lock
from shards.write.shard_writer import OpenShard
from shards.write.tar_shard import index_bytes


@dataclass(frozen=True)
class ShardContents:
    """The scans that make up one shard."""

    shard: Shard
    scans: tuple[Scan, ...]
    next: int
    """Place in the plan of the first scan of the next shard."""
    skipped: tuple[Skipped, ...]
    """Scans kept out between this shard and the one before."""


def repair(config: PackConfig, plan: PackPlan, bad: Sequence[str]) -> list[str]:
    """Rebuild the named shards of the set at `config.out.url`; gives the names of those that are whole again.

    Raises DataError when the plan is not the set's, or a rebuilt shard differs from the manifest.
    """
    manifest = read_manifest(config.out.url)
    shards = shards_of_pack(manifest, plan.fingerprint)
    if not shards:
        other = differences(manifest.recipe, plan.recipe)
        changed_settings = ", ".join(f"{key} is {old} there and {new} here" for key, old, new in other[:3])
        changed_settings = (changed_settings or "the source holds other images now") + other_secret(
            manifest.recipe, plan.recipe
        )
        raise DataError(
            f"{config.out.url} was not packed from this config and these images "
            f"({changed_settings}): give --repair the config it was packed with"
        )
    mine = [piece for piece in shard_contents(manifest, plan, shards) if piece.shard.name in bad]
    marks = Marks(plan)
    with set_lock(config.out.url) as lock:
        for piece in mine:
            _rebuild(config, marks, piece, lock.confirm)
    return [piece.shard.name for piece in mine]


def shards_of_pack(manifest: Manifest, fingerprint: str) -> tuple[Shard, ...]:
    """The shards that came with the pack or append of this fingerprint; empty where there is none."""
    first = 0
    for part in manifest.history:
        if part["fingerprint"] == fingerprint:
            return manifest.shards[first : first + part["shards"]]
        first += part["shards"]
    return ()


def shard_contents(manifest: Manifest, plan: PackPlan, shards: Sequence[Shard]) -> Iterator[ShardContents]:
    """Which scans each shard holds (pure)."""
    out = {row["key"]: Skipped(**row) for row in manifest.skipped}
    kept_places = [place for place, scan in enumerate(plan.scans) if scan.key not in out]
    ends = list(accumulate(shard.samples for shard in shards))
    # Where the counts do not sum up, each shard would be given scans of its neighbour.
    if ends[-1:] != [len(kept_places)]:
        raise DataError(f"{manifest.url}: the manifest's counts do not sum up; pack the set again")
    before = 0
    for shard, end in zip(shards, ends, strict=True):
        places = kept_places[end - shard.samples : end]
        after = kept_places[end] if end < len(kept_places) else len(plan.scans)
        skipped = [out[s.key] for s in plan.scans[before:after] if s.key in out]
        yield ShardContents(shard, tuple(plan.scans[p] for p in places), after, tuple(skipped))
        before = after


def _rebuild(config: PackConfig, marks: Marks, piece: ShardContents, confirm: Callable[[], None]) -> None:
    url, wanted = config.out.url, piece.shard
    with Scratch("repair", uuid.uuid4().hex) as scratch:
        opened = OpenShard(os.path.join(scratch.folder, wanted.name), wanted.name, wanted.split)
        for scan in piece.scans:
            sample = make_sample(scan, image=config.image)
            if not isinstance(sample, PackedSample):
                raise DataError(f"{wanted.name} cannot be rebuilt: {sample}; bring the source back as it was")
            opened.add(sample, scan.source)
        shard = opened.close()
        if not wanted.fields_sha256:
            shard = replace(shard, fields_sha256="")  # packed before it was kept
        done, mark = opened.record(shard, piece.next, piece.skipped), marks.at(piece.next)
        for record in (done, replace(done, sources=None)):  # as an index is now, and as it was before
            index = index_bytes(opened.tar.entries, record.to_tree(mark))
            info = storage.bytes_info(index)
            built = replace(shard, index=IndexFile(shard.index.name, info.bytes, info.sha256))
            if built == wanted:
                break
        if built != wanted:
            raise DataError(
                f"{wanted.name} rebuilt from the source differs from the manifest: the source or this "
                "software has changed since it was packed; pack the set again with --force"
            )
        # Rebuilding takes a while: another process may have taken the lock since.
        confirm()
        # The tar before its index, as in a pack: an index says that its tar is whole.
        verified_files.upload_verified(opened.path, storage.join(url, wanted.name))
        verified_files.write(storage.join(url, wanted.index.name), index)
