"""Images -> tar shards, index files and a manifest, at any URL.

    manifest = pack(config)

Scans are planned (plan.py), read and encoded in parallel but kept in order (sample.py, parallel.py),
and collected into shards in local scratch. A shard is put whole, then its index, which commits it;
the manifest comes last. Killed anywhere, the same command goes on after the last committed shard
and ends with the same bytes, whatever the number of workers.
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

from retfound_dist import class_names, storage
from retfound_dist.config import differences
from retfound_dist.errors import ConfigError, DataError
from retfound_dist.schema import PackConfig
from retfound_dist.scratch import Scratch
from retfound_dist.shardset import MANIFEST, Manifest, read_manifest
from shards import committed
from shards.burnt_in import count_framed, count_not_compared, find_burnt_in
from shards.card import CARD, KEPT, OUT, QUALITY, make_card
from shards.committed import Committed
from shards.manifest import make_manifest
from shards.parallel import available_cores, ordered_map
from shards.people.choice import DIGEST
from shards.people.secret import SALT, find_secret
from shards.people.table import table_path, write_table
from shards.plan import SECRET, Plan, make_plan
from shards.quality import PAIRS, quality_page
from shards.record import Scan
from shards.sample import Sample, Skipped, make_sample
from shards.sheet import draw, dropped_tiles, examples, kept_tiles, read_keys
from shards.sources import open_sources
from shards.suspects import pictured
from shards.writer import ShardWriter, first_few

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
    return existing_set(config, plan, force=force) or run_plan(config, plan, progress)


def plan_pack(config: PackConfig, *, dry: bool = False) -> Plan:
    """What would be packed, without reading an image; `dry`: for a look, no secret is made and kept."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", config.out.name):
        raise ConfigError(f"out.name={config.out.name!r} must be letters, digits, _ and - only")
    table_path(config)  # a place that cannot be is told before anything is read
    opened = open_sources(config, partial(find_secret, make=not dry))
    kinds = {source.name: source.kind for source in opened}
    notes = {source.name: (*source.notes, *_label_doubts(source.scans)) for source in opened}
    choices = {source.name: source.choice for source in opened}
    scans = [scan for source in opened for scan in source.scans]
    del opened
    try:
        plan = make_plan(scans, config, choices)
    except DataError as error:
        if not any(choice.keys == DIGEST for choice in choices.values()):
            raise
        raise DataError(f"{error} (to see the names: source.keys=names --dry-run)") from None
    return replace(plan, kinds=kinds, notes=notes)


def _label_doubts(scans: Sequence[Scan]) -> list[str]:
    """Warnings where labels are no classes: packing does not need labels, `evaluate` will refuse these."""
    doubts = class_names.doubts(Counter(scan.label for scan in scans if scan.label is not None))
    return [f"warning, labels: {doubt}; retfound evaluate will refuse them" for doubt in doubts]


def existing_set(config: PackConfig, plan: Plan, *, force: bool = False) -> Manifest | None:
    """The set at `out.url` if it is this plan's; another one is an error, or removed by `force`."""
    found = committed.read_existing(config.out.url)
    if found is None:
        return None
    if force:
        committed.discard(config.out.url, found)
        return None
    if plan.fingerprint not in {found.fingerprint, *(part["fingerprint"] for part in found.history)}:
        other = differences(found.recipe, plan.recipe)
        what = ", ".join(f"{key} is {old} there and {new} here" for key, old, new in other[:3])
        what += other_secret(found.recipe, plan.recipe)
        raise DataError(
            f"{config.out.url} holds a shard set of {found.samples:,} images packed otherwise "
            f"({what or 'from other images'}): choose another out.url, or replace it with --force"
        )
    committed.finish(config.out.url)
    return found


def other_secret(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What to do where two packs have keyed their digests with different secrets."""
    if not there.get(SECRET) or not here.get(SECRET) or there[SECRET] == here[SECRET]:
        return ""
    return f"; names were digested with another secret: set {SALT} to the one of that set"


def run_plan(
    config: PackConfig, plan: Plan, progress: Progress | None = None, config_file: str = CONFIG_FILE
) -> Manifest:
    """Pack a plan onto a URL that holds no set, going on after the shards it has committed before.

    `config_file`: how the data card calls the file the settings came from.
    """
    url = config.out.url
    write_table(config, plan.scans)
    shards = committed.recover(url, config.out.name, plan)
    writer = write_plan(config, plan, shards, (), progress)
    if not writer.shards:
        raise DataError(_nothing_usable(writer.skipped))
    tree = make_manifest(plan, config, writer.shards, writer.skipped)
    manifest = describe(plan, config, tree, writer.shards, writer.skipped, config_file)
    storage.write_json(storage.join(url, MANIFEST), manifest)
    committed.finish(url)
    return read_manifest(url)


def write_plan(
    config: PackConfig,
    plan: Plan,
    shards: Sequence[Committed],
    base: Sequence[Committed],
    progress: Progress | None,
) -> ShardWriter:
    """Pack what is left of a plan after its committed shards; `base`: those it is appended to."""
    start = shards[-1].next if shards else 0
    with (
        Scratch("pack", uuid.uuid4().hex) as scratch,
        ShardWriter(config.out, plan, scratch.folder, shards, base) as writer,
        closing(samples(config, plan, start)) as results,
    ):
        for place, result in enumerate(results, start=start):
            writer.take(place, result)
            if progress:
                progress(place + 1, len(plan.scans))
        writer.commit(len(plan.scans))
    return writer


def describe(
    plan: Plan,
    config: PackConfig,
    manifest: dict[str, Any],
    shards: Sequence[Committed],
    skipped: Sequence[Skipped],
    config_file: str,
) -> dict[str, Any]:
    """Data card, quality page and pictures, beside the manifest and before it; gives the whole manifest."""
    url = config.out.url
    kept, dropped = kept_tiles(url, plan, shards, skipped), dropped_tiles(plan, skipped)
    burnt_in = {**manifest.get("burnt_in", {}), **find_burnt_in(kept)}
    not_compared = {**manifest.get("not_compared", {}), **count_not_compared(kept)}
    framed = {**manifest.get("framed", {}), **count_framed(kept)}
    tree = {**manifest, "burnt_in": burnt_in, "not_compared": not_compared, "framed": framed}
    shown = examples(kept)
    page = draw(shown, [f"{tile.group}\n{tile.key}" for tile in shown], apart=True)
    storage.write_bytes(storage.join(url, KEPT), page)
    if dropped:
        page = draw(dropped, [f"{tile.key} {tile.note}" for tile in dropped])
        storage.write_bytes(storage.join(url, OUT), page)
    pairs = tree["near_duplicates"]["first"][:PAIRS]
    wanted = [key for a, b, _ in pairs for key in (a, b)]
    wanted += [key for _, keys in pictured(tree.get("suspects", {})) for key in keys]
    alike = read_keys(url, shards, wanted)
    storage.write_text(storage.join(url, QUALITY), quality_page(tree, kept, dropped, alike))
    storage.write_text(storage.join(url, CARD), make_card(tree, config, config_file))
    return tree


def samples(config: PackConfig, plan: Plan, start: int) -> Generator[Sample | Skipped]:
    """The samples of the plan from `start` on, in order."""
    left = len(plan.scans) - start
    workers = 1 if left < FEW else config.out.workers or available_cores()
    return ordered_map(partial(make_sample, image=config.image), islice(plan.scans, start, None), workers)


def _nothing_usable(skipped: Sequence[Skipped]) -> str:
    return (
        f"none of {len(skipped):,} images can be used: {first_few(skipped)}; "
        "source.path must hold B-scans as JPEG, PNG, TIFF, BMP or WebP files"
    )
