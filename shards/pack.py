"""Packs images into tar shards with index files and a manifest, at any URL.

    manifest = pack(config)

Scans are planned (pack_plan.py), read and encoded in parallel but kept in order (packed_sample.py,
ordered_map.py),
and collected into shards in local scratch. A shard is put whole, then its index, which commits it;
the manifest comes last. Killed anywhere, the same command goes on after the last committed shard
and ends with the same bytes, whatever the number of workers. One process packs at a URL (set_ownership.py).

A set that replaces another is packed beside it. Until its manifest is written the old set stands as it
was; then the old shards are removed.
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
from shards.report.contact_sheet import draw_page, dropped_tiles, first_of_each_group, kept_tiles, read_keys
from shards.report.data_card import CARD, KEPT, OUT, QUALITY, make_card
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
"""Where no file's name is known."""
FEW = 64
"""So many scans are packed sooner than processes start."""


def pack(config: PackConfig, *, force: bool = False, progress: Progress | None = None) -> Manifest:
    """Pack the configured source; gives the manifest, at once where the set is complete already.

    Raises DataError when nothing usable is found, the budget of bad images is spent, or another set
    stands at `out.url` and `force` is not given.
    """
    plan = plan_pack(config)
    return existing_set(config, plan, force=force) or run_plan(config, plan, progress, force=force)


def plan_pack(config: PackConfig, *, dry: bool = False) -> PackPlan:
    """Lists and orders all that is to be packed, without reading an image.

    `dry`: do not create a secret file."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", config.out.name):
        raise ConfigError(f"out.name={config.out.name!r} must be letters, digits, _ and - only")
    table_path(config)  # a place that cannot be is told before anything is read
    opened = open_sources(config, partial(find_secret, make=not dry))
    kinds = {source.name: source.kind for source in opened}
    notes = {source.name: (*source.notes, *_label_doubts(source.scans)) for source in opened}
    choices = {source.name: source.choice for source in opened}
    scans = [scan for source in opened for scan in source.scans]
    # `make_plan` empties the list that it is given: with a second reference millions of scans stay in memory.
    del opened
    try:
        plan = make_plan(scans, config, choices)
    except DataError as error:
        if not any(choice.keys == DIGEST for choice in choices.values()):
            raise
        raise DataError(f"{error} (to see the names: source.keys=names --dry-run)") from None
    return replace(plan, kinds=kinds, notes=notes)


def _label_doubts(scans: Sequence[Scan]) -> list[str]:
    """Warns of labels that are no classes. Packing does not need them, but `evaluate` will refuse them."""
    doubts = class_names.doubts(Counter(scan.label for scan in scans if scan.label is not None))
    return [f"warning, labels: {doubt}; retfound evaluate will refuse them" for doubt in doubts]


def existing_set(config: PackConfig, plan: PackPlan, *, force: bool = False) -> Manifest | None:
    """The set at `out.url` where it is complete and of this plan; None where it has to be packed or finished.

    DataError for another set, unless `force` is given.
    """
    manifest = committed_shards.read_existing(config.out.url, replaced=force)
    if manifest is None:
        return None
    set_ownership.drop_lock_of_the_dead(config.out.url)
    # An appended set has a fingerprint of its own; those of its packs are in its history.
    if plan.fingerprint not in {manifest.fingerprint, *(part["fingerprint"] for part in manifest.history)}:
        if force:
            return None
        other = differences(manifest.recipe, plan.recipe)
        changed_settings = ", ".join(f"{key} is {old} there and {new} here" for key, old, new in other[:3])
        changed_settings += other_secret(manifest.recipe, plan.recipe)
        raise DataError(
            f"{config.out.url} holds a shard set of {manifest.samples:,} images packed otherwise "
            f"({changed_settings or 'from other images'}): choose another out.url, or replace it with --force"
        )
    return None if force or _is_unfinished(config.out.url, manifest, plan) else manifest


def _is_unfinished(url: str, manifest: Manifest | None, plan: PackPlan) -> bool:
    """Whether this plan's manifest was written but its pages may be missing."""
    if manifest is None or manifest.fingerprint != plan.fingerprint:
        return False
    mark = set_ownership.read_marker(url)
    return mark is not None and mark.fingerprint in ("", plan.fingerprint)


def other_secret(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """A hint for an error message where two packs have different secrets; empty where they have the same."""
    if not there.get(SECRET) or not here.get(SECRET) or there[SECRET] == here[SECRET]:
        return ""
    return f"; names were digested with another secret: set {SALT} to the one of that set"


def run_plan(
    config: PackConfig,
    plan: PackPlan,
    progress: Progress | None = None,
    config_file: str = CONFIG_FILE,
    *,
    force: bool = False,
) -> Manifest:
    """Pack a plan to a URL. Continues after the shards that an interrupted pack has committed.

    `config_file`: the config's file name on the data card. `force`: replace the set that is there, once the
    new one is complete.
    """
    url = config.out.url
    with set_lock(url) as lock:
        if finished := existing_set(config, plan, force=force):  # packed by another process meanwhile
            return finished
        series, keep = _place(config, plan, force)
        # Before the first shard: there must be no digest in a store that nobody can lead back to a name.
        if not keep:
            write_table(config, plan.scans)
        shards = committed_shards.recover_shards(url, series, plan, keep)
        writer = write_plan(config, plan, shards, (), progress, series, lock.confirm)
        if not writer.shards:
            raise DataError(_nothing_usable(writer.skipped))
        tree = make_manifest(plan, config, writer.shards, writer.skipped)
        tree, pages = describe_set(plan, config, tree, writer.shards, writer.skipped, config_file)
        lock.confirm()
        if keep:  # until now the table was the old set's
            write_table(config, plan.scans)
        commit_set(url, tree, pages)
        return read_manifest(url)


def _place(config: PackConfig, plan: PackPlan, force: bool) -> tuple[ShardNames, set[str]]:
    """Chooses the names of this plan's shards, and the existing files to keep until it is committed."""
    url, name = config.out.url, config.out.name
    old = committed_shards.read_existing(url, replaced=force)
    if old is not None:
        keep = set_ownership.files_of(old.shards)
        if _is_unfinished(url, old, plan):
            return ShardNames(name, max(set_ownership.generations(name, keep), default=1)), keep
        return ShardNames(name, set_ownership.free_generation(name, keep)), keep
    if not storage.exists(storage.join(url, MANIFEST)):
        return ShardNames(name), set()
    # A manifest that cannot be read: which files it names is not known, so none is touched.
    there, mark = set_ownership.set_files_at(url), set_ownership.read_marker(url)
    if mark is not None and mark.fingerprint == plan.fingerprint:
        series = ShardNames(name, mark.generation)
    else:
        series = ShardNames(name, set_ownership.free_generation(name, there))
    return series, {
        file for file in there if series.generation not in set_ownership.generations(name, [file])
    }


def commit_set(url: str, tree: dict[str, Any], pages: Mapping[str, bytes]) -> None:
    """Commit the set by its manifest; then write its pages and remove files that are not part of it."""
    verified_files.write_json(storage.join(url, MANIFEST), tree)
    # From here on the set stands. A kill leaves packing.json, by which the next start writes the pages.
    for name in set_ownership.BESIDE:
        where = storage.join(url, name)
        if name in pages:
            verified_files.write(where, pages[name])
        else:
            storage.delete(where)
    # Readers of a replaced set had its shards until now, when the manifest names the new ones.
    set_ownership.remove_leftovers(
        url, {file for shard in tree["shards"] for file in (shard["name"], shard["index"]["name"])}
    )
    # Last: as long as packing.json is there, the next start comes back to do the steps above.
    set_ownership.remove_marker(url)


def write_plan(
    config: PackConfig,
    plan: PackPlan,
    shards: Sequence[CommittedShard],
    base: Sequence[CommittedShard],
    progress: Progress | None,
    series: ShardNames,
    confirm: Callable[[], None],
) -> ShardWriter:
    """Pack the rest of a plan after its committed shards. `base`: the shards of the set it is appended to."""
    start = shards[-1].next if shards else 0
    # Left in reverse order: the workers stop first, then the open shard is dropped, then its folder goes.
    with (
        Scratch("pack", uuid.uuid4().hex) as scratch,
        ShardWriter(config.out, plan, scratch.folder, shards, base, series, confirm) as writer,
        closing(samples(config, plan, start)) as results,
    ):
        for place, result in enumerate(results, start=start):
            writer.take(place, result)
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
    kept_pictures, dropped = kept_tiles(url, plan, shards, skipped), dropped_tiles(plan, skipped)
    burnt_in = {**manifest.get("burnt_in", {}), **find_burnt_in(kept_pictures)}
    not_compared = {**manifest.get("not_compared", {}), **count_not_compared(kept_pictures)}
    framed = {**manifest.get("framed", {}), **count_framed(kept_pictures)}
    tree = {**manifest, "burnt_in": burnt_in, "not_compared": not_compared, "framed": framed}
    shown = first_of_each_group(kept_pictures)
    pages = {KEPT: draw_page(shown, [f"{tile.group}\n{tile.key}" for tile in shown], apart=True)}
    if dropped:
        pages[OUT] = draw_page(dropped, [f"{tile.key} {tile.note}" for tile in dropped])
    pairs = tree["near_duplicates"]["first"][:PAIRS]
    wanted = [key for a, b, _ in pairs for key in (a, b)]
    wanted += [key for _, keys in keys_to_show(tree.get("suspects", {})) for key in keys]
    alike = read_keys(url, shards, wanted)
    pages[QUALITY] = quality_page(tree, kept_pictures, dropped, alike).encode()
    pages[CARD] = make_card(tree, config, config_file).encode()
    return tree, pages


def samples(config: PackConfig, plan: PackPlan, start: int) -> Generator[PackedSample | Skipped]:
    """The samples of the plan from `start` on, in order."""
    left = len(plan.scans) - start
    # Spawning a process imports NumPy and Pillow again, which takes longer than packing a few scans.
    workers = 1 if left < FEW else config.out.workers or available_cores()
    return ordered_map(partial(make_sample, image=config.image), islice(plan.scans, start, None), workers)


def _nothing_usable(skipped: Sequence[Skipped]) -> str:
    return (
        f"none of {len(skipped):,} images can be used: {first_few(skipped)}; "
        "source.path must hold B-scans as JPEG, PNG, TIFF, BMP or WebP files"
    )
