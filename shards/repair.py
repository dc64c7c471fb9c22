"""Rebuilds bad shards of a set from its sources, with exactly the bytes that the manifest records.

The manifest says how many samples each shard holds and which scans were left out. The plan, made again from
the same sources and settings, says which scans these are. A rebuilt shard is written only if its hash is the
one in the manifest. If the source has changed, that is an error.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from retfound_dist.config.schema import PackConfig
from retfound_dist.errors import DataError
from retfound_dist.formats.shard_set import IndexFile, Manifest, Shard, read_manifest
from retfound_dist.io import storage, verified_files
from retfound_dist.io.scratch import Scratch
from shards.images.scan import Scan
from shards.pack import recipe_difference
from shards.planning.pack_plan import PackPlan, PlanDigests
from shards.write.packed_sample import PackedSample, Skipped, make_sample
from shards.write.set_ownership import set_lock
from shards.write.shard_writer import OpenShard
from shards.write.tar_shard import index_bytes


@dataclass(frozen=True)
class ShardContents:
    """The scans that one shard consists of."""

    shard: Shard
    scans: tuple[Scan, ...]
    next_place: int
    """Place in the plan of the first scan of the next shard."""
    skipped: tuple[Skipped, ...]
    """Scans kept out between this shard and the one before."""


def repair(config: PackConfig, plan: PackPlan, bad: Sequence[str]) -> list[str]:
    """Rebuild the named shards of the set at `config.out.url`. Returns the names of the rebuilt ones.

    Raises DataError if the set was packed from another plan, or if a rebuilt shard differs from the manifest.
    """
    manifest = read_manifest(config.out.url)
    shards = shards_of_pack(manifest, plan.fingerprint)
    if not shards:
        difference = recipe_difference(manifest.recipe, plan.recipe) or "the source holds other images now"
        raise DataError(
            f"{config.out.url} was not packed from this config and these images ({difference}): "
            "give --repair the config it was packed with"
        )
    bad_contents = [
        contents for contents in shard_contents(manifest, plan, shards) if contents.shard.name in bad
    ]
    plan_digests = PlanDigests(plan)
    with set_lock(config.out.url) as lock:
        for contents in bad_contents:
            _rebuild_shard(config, plan_digests, contents, lock.check_still_held)
    return [contents.shard.name for contents in bad_contents]


def shards_of_pack(manifest: Manifest, fingerprint: str) -> tuple[Shard, ...]:
    """Returns the shards of the pack or append with this fingerprint; empty if there is none."""
    first = 0
    for part in manifest.history:
        if part["fingerprint"] == fingerprint:
            return manifest.shards[first : first + part["shards"]]
        first += part["shards"]
    return ()


def shard_contents(manifest: Manifest, plan: PackPlan, shards: Sequence[Shard]) -> Iterator[ShardContents]:
    """Finds the scans of each shard (pure)."""
    skipped_of_key = {row["key"]: Skipped(**row) for row in manifest.skipped}
    kept_places = [place for place, scan in enumerate(plan.scans) if scan.key not in skipped_of_key]
    ends = list(accumulate(shard.samples for shard in shards))
    # With wrong counts a shard would get scans of its neighbour.
    if ends[-1:] != [len(kept_places)]:
        raise DataError(f"{manifest.url}: the counts in the manifest do not add up; pack the set again")
    start = 0
    for shard, end in zip(shards, ends, strict=True):
        places = kept_places[end - shard.samples : end]
        end_place = kept_places[end] if end < len(kept_places) else len(plan.scans)
        skipped = [skipped_of_key[s.key] for s in plan.scans[start:end_place] if s.key in skipped_of_key]
        yield ShardContents(shard, tuple(plan.scans[p] for p in places), end_place, tuple(skipped))
        start = end_place


def _rebuild_shard(
    config: PackConfig, plan_digests: PlanDigests, contents: ShardContents, confirm_lock: Callable[[], None]
) -> None:
    """Packs one shard again, and uploads it if it is the same as in the manifest, else DataError."""
    url, expected = config.out.url, contents.shard
    with Scratch("repair", uuid.uuid4().hex) as scratch:
        open_shard = OpenShard(os.path.join(scratch.folder, expected.name), expected.name, expected.split)
        for scan in contents.scans:
            sample = make_sample(scan, image=config.image)
            if not isinstance(sample, PackedSample):
                raise DataError(f"{expected.name} cannot be rebuilt: {sample}; restore the source")
            open_shard.add(sample, scan.source)
        shard = open_shard.close()
        if not expected.fields_sha256:
            shard = replace(shard, fields_sha256="")  # packed by a version that did not record it
        committed, plan_digest = (
            open_shard.make_record(shard, contents.next_place, contents.skipped),
            plan_digests.at(contents.next_place),
        )
        # Older versions wrote no source digests into the index.
        for record in (committed, replace(committed, source_digests=None)):
            index = index_bytes(open_shard.tar.entries, record.to_tree(plan_digest))
            info = storage.bytes_info(index)
            built = replace(shard, index=IndexFile(shard.index.name, info.bytes, info.sha256))
            if built == expected:
                break
        if built != expected:
            raise DataError(
                f"{expected.name}, rebuilt from the source, differs from the manifest: the source or this "
                "software has changed since the set was packed; pack the set again with --force"
            )
        # Rebuilding takes time, and another process may have taken the lock since.
        confirm_lock()
        # The tar before its index, as in a pack: an index says that its tar is complete.
        verified_files.upload_verified(open_shard.path, storage.join(url, expected.name))
        verified_files.write(storage.join(url, expected.index.name), index)
