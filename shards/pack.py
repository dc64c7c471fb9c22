"""Packs images into tar shards with index files and a manifest, at any URL.

    manifest = pack(config)

1. pack_plan.py puts all scans into a fixed order.
2. Workers read and encode them in parallel (packed_sample.py); ordered_map.py keeps the order.
3. shard_writer.py collects the samples into shards. It writes each tar, then its index, which commits it.
4. The manifest is written last.

After a kill the same command continues after the last committed shard. The result has the same bytes, with
any number of workers. One process at a time packs at a URL (set_ownership.py).

A set that replaces another is packed beside it. The old set stays complete until the new manifest is written.
Then the old shards are removed.
"""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from retfound_dist.config.loading import differences
from retfound_dist.config.schema import PackConfig
from retfound_dist.errors import ConfigError, DataError
from retfound_dist.formats.shard_set import MANIFEST, Manifest, read_manifest
from retfound_dist.io import storage, verified_files
from retfound_dist.io.scratch import Scratch
from retfound_dist.listing import class_names
from shards.images.scan import Scan
from shards.images.suspects import keys_to_show
from shards.ordered_map import available_cores, ordered_map
from shards.people.name_policy import DIGEST
from shards.people.names_table import table_path, write_table
from shards.people.secret import SALT, find_secret
from shards.planning.pack_plan import SECRET, PackPlan, make_plan
from shards.report.burnt_in import count_framed, count_not_compared, find_burnt_in
from shards.report.contact_sheet import draw_page, dropped_tiles, first_of_each_group, kept_tiles, read_pixels
from shards.report.data_card import CARD, DROPPED, EXAMPLES, QUALITY, make_card
from shards.report.quality_page import PAIRS, quality_page
from shards.sources.adapters import open_sources
from shards.write import committed_shards, set_ownership
from shards.write.committed_shards import CommittedShard
from shards.write.manifest import make_manifest
from shards.write.packed_sample import PackedSample, Skipped, make_sample
from shards.write.set_ownership import ShardNames, set_lock
from shards.write.shard_writer import ShardWriter, first_few

Progress = Callable[[int, int], None]
"""Called with the number of scans done and of all scans."""
CONFIG_FILE = "CONFIG.toml"
"""Name on the data card where the config does not come from a file."""
FEW_SCANS = 64
"""Fewer scans are packed in this process, because starting workers would take longer."""


def pack(config: PackConfig, *, force: bool = False, progress: Progress | None = None) -> Manifest:
    """Pack the configured sources and return the manifest. A complete set is returned at once.

    Raises DataError when no image can be used, when there are more bad images than allowed, or when another
    set is at `out.url` and `force` is not given.
    """
    plan = plan_pack(config)
    return existing_set(config, plan, force=force) or pack_planned(config, plan, progress, force=force)


def plan_pack(config: PackConfig, *, dry: bool = False, on_progress: Progress | None = None) -> PackPlan:
    """Lists and orders the scans to pack, without reading an image.

    `dry`: do not create a secret file. `on_progress`: called with the number of device files that are listed
    and of all. Each is opened.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", config.out.name):
        raise ConfigError(f"out.name={config.out.name!r} must be letters, digits, _ and - only")
    table_path(config)  # raises for an impossible path before anything is read
    opened = open_sources(config, partial(find_secret, create=not dry), on_progress)
    kinds = {source.name: source.kind for source in opened}
    notes = {source.name: (*source.notes, *_label_warnings(source.scans)) for source in opened}
    name_policies = {source.name: source.name_policy for source in opened}
    scans = [scan for source in opened for scan in source.scans]
    # `make_plan` empties the list. A second reference would keep millions of scans in memory.
    del opened
    try:
        plan = make_plan(scans, config, name_policies)
    except DataError as error:
        if not any(policy.keys == DIGEST for policy in name_policies.values()):
            raise
        raise DataError(f"{error} (--dry-run with source.keys=names shows the names)") from None
    return replace(plan, kinds=kinds, notes=notes)


def _label_warnings(scans: Sequence[Scan]) -> list[str]:
    """Warns of labels that packing accepts and `evaluate` refuses."""
    doubts = class_names.label_problems(Counter(scan.label for scan in scans if scan.label is not None))
    return [f"warning, labels: {doubt}; retfound evaluate will refuse them" for doubt in doubts]


def existing_set(config: PackConfig, plan: PackPlan, *, force: bool = False) -> Manifest | None:
    """Returns the set at `out.url` if it is complete and of this plan; None if there is still work to do.

    DataError for another set, unless `force` is given.
    """
    manifest = committed_shards.read_existing(config.out.url, replacing=force)
    if manifest is None:
        return None
    set_ownership.remove_stale_lock(config.out.url)
    # A set with appended sources has its own fingerprint. Its history has those of its packs.
    if plan.fingerprint not in {manifest.fingerprint, *(part["fingerprint"] for part in manifest.history)}:
        if force:
            return None
        difference = recipe_difference(manifest.recipe, plan.recipe) or "from other images"
        raise DataError(
            f"{config.out.url} holds another shard set of {manifest.samples:,} images ({difference}): "
            "choose another out.url, or replace it with --force"
        )
    return None if force or _is_unfinished(config.out.url, manifest, plan) else manifest


def _is_unfinished(url: str, manifest: Manifest | None, plan: PackPlan) -> bool:
    """Whether this plan's manifest is written but its pages may be missing."""
    if manifest is None or manifest.fingerprint != plan.fingerprint:
        return False
    marker = set_ownership.read_marker(url)
    return marker is not None and marker.fingerprint in ("", plan.fingerprint)


def recipe_difference(packed: Mapping[str, Any], planned: Mapping[str, Any]) -> str:
    """Returns the first three settings in which two recipes differ, in words; empty where they are equal."""
    changed = differences(packed, planned)
    text = ", ".join(f"{key} is {old} there and {new} here" for key, old, new in changed[:3])
    if packed.get(SECRET) and planned.get(SECRET) and packed[SECRET] != planned[SECRET]:
        text += f"; names in that set are digests with another secret: set {SALT} to it"
    return text


def pack_planned(
    config: PackConfig,
    plan: PackPlan,
    progress: Progress | None = None,
    config_file: str = CONFIG_FILE,
    *,
    force: bool = False,
) -> Manifest:
    """Pack the images of a plan to `out.url`, and return the manifest of the set.

    Continues after the shards that an interrupted pack has committed. `config_file`: the config's file name
    on the data card. `force`: replace an existing set when the new one is complete. Raises as `pack` does,
    and when another process packs there.
    """
    url = config.out.url
    with set_lock(url) as lock:
        # Another process may have packed it while this one waited for the lock.
        if packed := existing_set(config, plan, force=force):
            return packed
        shard_names, old_files = _choose_names(config, plan, force)
        # Before the first shard, so that the table has the name of every digest in the set. But until the new
        # set is committed, the table belongs to the old one.
        if not old_files:
            write_table(config, plan.scans)
        shards = committed_shards.recover_shards(url, shard_names, plan, old_files)
        writer = write_plan(config, plan, shards, (), progress, shard_names, lock.check_still_held)
        if not writer.shards:
            raise DataError(_nothing_usable(writer.skipped))
        tree = make_manifest(plan, config, writer.shards, writer.skipped)
        tree, pages = describe_set(plan, config, tree, writer.shards, writer.skipped, config_file)
        lock.check_still_held()
        if old_files:
            write_table(config, plan.scans)
        commit_set(url, tree, pages)
        return read_manifest(url)


def _choose_names(config: PackConfig, plan: PackPlan, force: bool) -> tuple[ShardNames, set[str]]:
    """Names of this plan's shards, and the files of an old set, which stay until this one is committed."""
    url, name = config.out.url, config.out.name
    old_set = committed_shards.read_existing(url, replacing=force)
    if old_set is not None:
        old_files = set_ownership.shard_files_of(old_set.shards)
        if _is_unfinished(url, old_set, plan):
            return ShardNames(name, max(set_ownership.generations(name, old_files), default=1)), old_files
        return ShardNames(name, set_ownership.free_generation(name, old_files)), old_files
    if not storage.exists(storage.join(url, MANIFEST)):
        return ShardNames(name), set()
    # The manifest cannot be read, so the files it names are not known: all existing shards are kept.
    existing, marker = set_ownership.shard_files_at(url), set_ownership.read_marker(url)
    if marker is not None and marker.fingerprint == plan.fingerprint:
        shard_names = ShardNames(name, marker.generation)
    else:
        shard_names = ShardNames(name, set_ownership.free_generation(name, existing))
    return shard_names, {
        file for file in existing if shard_names.generation not in set_ownership.generations(name, [file])
    }


def commit_set(url: str, tree: dict[str, Any], pages: Mapping[str, bytes]) -> None:
    """Commit the set by its manifest; then write its pages and remove files that are not part of it."""
    verified_files.write_json(storage.join(url, MANIFEST), tree)
    # The set is now committed. After a kill, packing.json makes the next start write the pages.
    for name in set_ownership.PAGE_FILES:
        where = storage.join(url, name)
        if name in pages:
            verified_files.write(where, pages[name])
        else:
            storage.delete(where)
    # Only now, because readers of a replaced set needed its shards until the new manifest was written.
    set_ownership.remove_leftovers(
        url, {file for shard in tree["shards"] for file in (shard["name"], shard["index"]["name"])}
    )
    # Last, because packing.json makes the next start repeat the steps above.
    set_ownership.remove_marker(url)


def write_plan(
    config: PackConfig,
    plan: PackPlan,
    shards: Sequence[CommittedShard],
    base: Sequence[CommittedShard],
    progress: Progress | None,
    shard_names: ShardNames,
    confirm_lock: Callable[[], None],
) -> ShardWriter:
    """Pack the rest of a plan after its committed shards. `base`: the shards of the set it is appended to."""
    start = shards[-1].next_place if shards else 0
    # These end in reverse order: the workers stop, the unfinished shard is removed, then its folder.
    with (
        Scratch("pack", uuid.uuid4().hex) as scratch,
        ShardWriter(config.out, plan, scratch.folder, shards, base, shard_names, confirm_lock) as writer,
        closing(samples(config, plan, start)) as results,
    ):
        for place, result in enumerate(results, start=start):
            writer.add_result(place, result)
            if progress:
                progress(place + 1, len(plan.scans))
        writer.commit(len(plan.scans))
    return writer


def describe_set(
    plan: PackPlan,
    config: PackConfig,
    manifest: dict[str, Any],
    shards: Sequence[CommittedShard],
    skipped: Sequence[Skipped],
    config_file: str,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Returns the complete manifest, and the files beside it by name: data card, quality page, pictures."""
    url = config.out.url
    kept, dropped = kept_tiles(url, plan, shards, skipped), dropped_tiles(plan, skipped)
    tree = {
        **manifest,
        "burnt_in": {**manifest.get("burnt_in", {}), **find_burnt_in(kept)},
        "not_compared": {**manifest.get("not_compared", {}), **count_not_compared(kept)},
        "framed": {**manifest.get("framed", {}), **count_framed(kept)},
    }
    examples = first_of_each_group(kept)
    captions = [f"{tile.group}\n{tile.key}" for tile in examples]
    pages = {EXAMPLES: draw_page(examples, captions, group_rows=True)}
    if dropped:
        pages[DROPPED] = draw_page(dropped, [f"{tile.key} {tile.note}" for tile in dropped])
    pairs = tree["near_duplicates"]["first"][:PAIRS]
    keys = [key for first, second, _ in pairs for key in (first, second)]
    keys += [key for _, suspects in keys_to_show(tree.get("suspects", {})) for key in suspects]
    pages[QUALITY] = quality_page(tree, kept, dropped, read_pixels(url, shards, keys)).encode()
    pages[CARD] = make_card(tree, config, config_file).encode()
    return tree, pages


def samples(config: PackConfig, plan: PackPlan, start: int) -> Generator[PackedSample | Skipped]:
    """Makes the samples of the plan from `start` on, in order."""
    remaining = len(plan.scans) - start
    # A new process imports NumPy and Pillow again, which takes longer than packing a few scans.
    workers = 1 if remaining < FEW_SCANS else config.out.workers or available_cores()
    return ordered_map(partial(make_sample, image=config.image), islice(plan.scans, start, None), workers)


def _nothing_usable(skipped: Sequence[Skipped]) -> str:
    return (
        f"none of {len(skipped):,} images can be used: {first_few(skipped)}; "
        "give source.path a folder of B-scans as JPEG, PNG, TIFF, BMP or WebP files"
    )
