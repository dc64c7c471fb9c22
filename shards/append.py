"""Adds sources to an existing shard set as new shards. The files of the old shards are not changed.

    retfound pack CONFIG.toml out.url=SET --append

Readers see the old set until the new manifest replaces the old one. `history` in the manifest says which
shards came from which config. Pictures that the set already has are not packed again. Patients of different
sources count as different people.
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
from shards.write.set_ownership import ShardNames, generations, read_marker, set_lock, shard_files_of
from shards.write.set_records import PackedManifest

_REMEDY = "pack the set again"


@dataclass(frozen=True)
class ExistingSet:
    """A shard set before sources are appended."""

    manifest: Manifest
    tree: dict[str, Any]
    shards: tuple[CommittedShard, ...]


def append(
    config: PackConfig, progress: Callable[[int, int], None] | None = None, config_file: str = CONFIG_FILE
) -> Manifest:
    """Add the configured sources to the set at `out.url`. Returns at once if the set has them already.

    Raises DataError when there is no set, when it has a source of this name or other image settings, when one
    of its shards cannot be read, or when another process packs there.
    """
    url = config.out.url
    read_manifest(url)  # raises before a lock is written to a folder without a set
    plan = plan_append(config)
    with set_lock(url) as lock:
        base = read_base(url)
        # A kill after the manifest was written leaves a complete set, whose pages may be missing.
        if plan.fingerprint in {part["fingerprint"] for part in base.manifest.history}:
            return _finish(config, plan, base, config_file)
        check_compatible(plan, base)
        write_table(config, plan.scans)
        old_files = shard_files_of(base.manifest.shards)
        shard_names = ShardNames(
            config.out.name, max(generations(config.out.name, old_files), default=1), len(base.shards)
        )
        # `old_files` protects the old shards: they are not of this plan, and recovering removes such files.
        recovered = committed_shards.recover_shards(url, shard_names, plan, old_files)
        writer = write_plan(
            config, plan, recovered, base.shards, progress, shard_names, lock.check_still_held
        )
        if not writer.shards:
            raise DataError(
                f"nothing in the new sources can be added to {url}: every image is bad or already in the set"
            )
        merged = merge_manifests(
            base.tree, make_manifest(plan, config, writer.shards, writer.skipped, base.shards)
        )
        shards = [*base.shards, *writer.shards]
        tree, pages = describe_set(plan, config, merged, shards, writer.skipped, config_file)
        # If this process was suspended and another took the lock, the other's manifest must stay.
        lock.check_still_held()
        commit_set(url, tree, pages)
        return read_manifest(url)


def _finish(config: PackConfig, plan: PackPlan, base: ExistingSet, config_file: str) -> Manifest:
    """Returns the set; writes the pages first where an append was killed before it wrote them."""
    url, marker = config.out.url, read_marker(config.out.url)
    if marker is not None and marker.fingerprint in ("", plan.fingerprint):
        keys = {scan.key for scan in plan.scans}
        skipped = [Skipped(**row) for row in base.manifest.skipped if row["key"] in keys]
        tree, pages = describe_set(plan, config, base.tree, base.shards, skipped, config_file)
        commit_set(url, tree, pages)
    return base.manifest


def read_base(url: str) -> ExistingSet:
    """Reads the manifest and all index files of the set at a URL."""
    manifest, where = read_manifest(url), storage.join(url, MANIFEST)
    shards = tuple(committed_shards.read_record(url, shard) for shard in manifest.shards)
    data = storage.read_bytes(where)
    tree: Mapping[str, Any] = json_reader.parse(data, dict[str, Any], where, _REMEDY)
    if missing := [key for key in ("history", "near_duplicates", "classes", "recipe") if key not in tree]:
        raise DataError(
            f"{where} has no {missing[0]}, because an older version packed the set. Nothing can be appended "
            "to it; pack the set again"
        )
    # Parsed strictly only now: for an old set the message above says more than one on a missing field.
    tree = json_reader.parse(data, PackedManifest, where, _REMEDY, format=FORMAT)
    return ExistingSet(manifest, dict(tree), shards)


def plan_of(config: PackConfig) -> PackPlan:
    """Returns the plan by which this config was packed or appended to the set at `out.url`."""
    fingerprints = {part["fingerprint"] for part in read_manifest(config.out.url).history}
    plan, append_plan = plan_pack(config), plan_append(config)
    return append_plan if append_plan.fingerprint in fingerprints else plan


def plan_append(config: PackConfig) -> PackPlan:
    """Returns the plan of the new sources. Each key begins with its source's name, to be new in the set."""
    plan = plan_pack(config)
    several = len(config.all_sources) > 1
    scans = [scan if several else with_source_prefix(scan) for scan in plan.scans]
    # With several sources a pack has the same keys. `history` needs another fingerprint for an append.
    settings = {**plan.recipe, "appended": True}
    return replace(plan, scans=tuple(scans), recipe=settings, fingerprint=fingerprint(scans, settings))


def check_compatible(plan: PackPlan, base: ExistingSet) -> None:
    """Raises DataError if the set has a source or key of the same name, or other image settings."""
    same_names = set(base.manifest.sources) & set(plan.kinds)
    if same_names:
        raise DataError(
            f"{base.manifest.url} already has a source {sorted(same_names)[0]}: "
            "give the new one another source.name"
        )
    # The manifest has one `image` section for all of its shards.
    if base.manifest.recipe.get("image") != plan.recipe["image"]:
        raise DataError(
            f"{base.manifest.url} was packed with the image settings {base.manifest.recipe.get('image')}: "
            "append with the same settings"
        )
    known_keys = {key for committed in base.shards for key in committed.keys}
    duplicate = next((scan.key for scan in plan.scans if scan.key in known_keys), None)
    if duplicate:
        raise DataError(f"{base.manifest.url} already has a sample {duplicate}: give the source another name")
