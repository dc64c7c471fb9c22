"""Adds a source to an existing shard set: new shards follow the old ones, whose files are not changed.

    retfound pack CONFIG.toml out.url=SET --append

Readers see the old set until the new manifest replaces the old one. They never see a part.
`history` in the manifest says which shards came with which config. Pictures that are already in the
set are not packed again. Patients of different sources count as different people, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from retfound_dist.config.schema import PackConfig
from retfound_dist.errors import DataError
from retfound_dist.formats.shard_set import FORMAT, MANIFEST, Manifest, read_manifest
from retfound_dist.io import storage
from retfound_dist.records import json_reader
from shards.pack import CONFIG_FILE, commit_set, describe_set, plan_pack, write_plan
from shards.people.names_table import write_table
from shards.people.pseudonyms import with_source_prefix
from shards.planning.pack_plan import PackPlan, fingerprint
from shards.write import committed_shards
from shards.write.committed_shards import CommittedShard
from shards.write.manifest import make_manifest, merge_manifests
from shards.write.packed_sample import Skipped
from shards.write.set_ownership import ShardNames, files_of, generations, read_marker, set_lock
from shards.write.set_records import PackedManifest

_REMEDY = "pack the set again"


@dataclass(frozen=True)
class ExistingSet:
    """The set before the append."""

    manifest: Manifest
    tree: dict[str, Any]
    shards: tuple[CommittedShard, ...]


def append(
    config: PackConfig, progress: Callable[[int, int], None] | None = None, config_file: str = CONFIG_FILE
) -> Manifest:
    """Add the configured sources to the set at `out.url`; at once where they are in it already.

    Raises DataError when there is no set, it has a source of this name or other image settings, a shard of
    it cannot be read, or another process packs there.
    """
    url = config.out.url
    read_manifest(url)  # before a lock is written to what is no set
    plan = plan_append(config)
    with set_lock(url) as lock:
        base = read_base(url)
        # An append that was killed after its manifest: the sources are in the set, its pages may not be.
        if _holds(base.manifest, plan):
            return _finished(config, plan, base, config_file)
        check_compatible(plan, base)
        write_table(config, plan.scans)
        old = files_of(base.manifest.shards)
        series = ShardNames(
            config.out.name, max(generations(config.out.name, old), default=1), len(base.shards)
        )
        # The old shards are not left-overs of this plan: recovering must not remove them.
        mine = committed_shards.recover_shards(url, series, plan, old)
        writer = write_plan(config, plan, mine, base.shards, progress, series, lock.confirm)
        if not writer.shards:
            raise DataError(
                f"nothing in the new sources can be added to {url}: every image is bad or there already"
            )
        merged = merge_manifests(
            base.tree, make_manifest(plan, config, writer.shards, writer.skipped, base.shards)
        )
        shards = [*base.shards, *writer.shards]
        tree, pages = describe_set(plan, config, merged, shards, writer.skipped, config_file)
        # A process that slept while another took its lock must not replace the other's manifest.
        lock.confirm()
        commit_set(url, tree, pages)
        return read_manifest(url)


def _holds(manifest: Manifest, plan: PackPlan) -> bool:
    return plan.fingerprint in {part["fingerprint"] for part in manifest.history}


def _finished(config: PackConfig, plan: PackPlan, base: ExistingSet, config_file: str) -> Manifest:
    """Returns the set; writes the pages first where an append was killed before it wrote them."""
    url, mark = config.out.url, read_marker(config.out.url)
    if mark is not None and mark.fingerprint in ("", plan.fingerprint):
        keys = {scan.key for scan in plan.scans}
        skipped = [Skipped(**row) for row in base.manifest.skipped if row["key"] in keys]
        tree, pages = describe_set(plan, config, base.tree, base.shards, skipped, config_file)
        commit_set(url, tree, pages)
    return base.manifest


def read_base(url: str) -> ExistingSet:
    """Reads the set at a URL, with its manifest and all index files."""
    manifest, where = read_manifest(url), storage.join(url, MANIFEST)
    shards = tuple(committed_shards.read_record(url, shard) for shard in manifest.shards)
    data = storage.read_bytes(where)
    tree: Mapping[str, Any] = json_reader.parse(data, dict[str, Any], where, _REMEDY)
    if missing := [key for key in ("history", "near_duplicates", "classes", "recipe") if key not in tree]:
        raise DataError(
            f"{where} has no {missing[0]}, so an older version packed it: nothing can be appended to it; "
            "pack the set again"
        )
    # Parsed a second time: an old set lacks whole sections, and that says more than a missing field.
    tree = json_reader.parse(data, PackedManifest, where, _REMEDY, format=FORMAT)
    return ExistingSet(manifest, dict(tree), shards)


def plan_of(config: PackConfig) -> PackPlan:
    """The plan that brought this config's images into the set at `out.url`, by a pack or by an append."""
    known = {part["fingerprint"] for part in read_manifest(config.out.url).history}
    plan, more = plan_pack(config), plan_append(config)
    return more if more.fingerprint in known else plan


def plan_append(config: PackConfig) -> PackPlan:
    """The plan of the new sources; each key begins with its source's name, so that it is new to the set."""
    plan = plan_pack(config)
    several = len(config.all_sources) > 1
    scans = [scan if several else with_source_prefix(scan) for scan in plan.scans]
    # With several sources the keys are the same whether packed or appended.
    # The fingerprint must differ all the same, for `history` tells the two apart by it.
    settings = {**plan.recipe, "appended": True}
    return replace(plan, scans=tuple(scans), recipe=settings, fingerprint=fingerprint(scans, settings))


def check_compatible(plan: PackPlan, base: ExistingSet) -> None:
    """DataError where the sources cannot be added to the set: same names or keys, other image settings."""
    known = set(base.manifest.sources) & set(plan.kinds)
    if known:
        raise DataError(
            f"{base.manifest.url} has a source {sorted(known)[0]} already: "
            "give the new one another source.name"
        )
    # The manifest has one `image` section for all of its shards.
    if base.manifest.recipe.get("image") != plan.recipe["image"]:
        raise DataError(
            f"{base.manifest.url} was packed with image settings {base.manifest.recipe.get('image')}: "
            "append with the same"
        )
    known_keys = {key for done in base.shards for key in done.keys}
    twice = next((scan.key for scan in plan.scans if scan.key in known_keys), None)
    if twice:
        raise DataError(f"{base.manifest.url} has a sample {twice} already: give the source another name")
