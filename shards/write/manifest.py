"""Makes the manifest of a finished pack from its plan and its committed shards (pure)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from retfound_dist.config.schema import PackConfig
from retfound_dist.formats.shard_set import FORMAT
from shards.images.near_duplicates import near_pairs
from shards.images.scan import Scan
from shards.images.suspects import count_suspects
from shards.planning.pack_plan import PARTS, PackPlan
from shards.planning.patient_counts import count_split, count_straddling
from shards.planning.scan_groups import Group, group_of
from shards.write.committed_shards import CommittedShard, shard_tree
from shards.write.packed_sample import Skipped
from shards.write.statistics import image_section, sum_statistics

NO_LABEL = "(none)"
MAX_NAMED_PAIRS = 100
"""Pairs of near duplicates that the manifest lists."""


def make_manifest(
    plan: PackPlan,
    config: PackConfig,
    shards: Sequence[CommittedShard],
    skipped: Sequence[Skipped],
    base: Sequence[CommittedShard] = (),
) -> dict[str, Any]:
    """Returns the contents of `manifest.json`. `image` and `near_duplicates` include the shards of `base`."""
    skipped_keys = {skip.key for skip in skipped}
    return {
        "format": FORMAT,
        "samples": sum(committed.shard.samples for committed in shards),
        "classes": classes(scan for scan in plan.scans if scan.key not in skipped_keys),
        "shards": [shard_tree(committed.shard) for committed in shards],
        "sources": {
            name: {
                "kind": plan.kinds.get(name, config.source.kind),
                **count_scans(scans),
                "split_by": count_split(scans, plan),
                "straddling": count_straddling(scans),
                "skipped": len(planned) - len(scans),
                "notes": list(plan.notes.get(name, ())),
                **({"names": plan.name_policies[name].to_tree()} if name in plan.name_policies else {}),
            }
            for name, planned in _by_source(plan.scans).items()
            for scans in [[scan for scan in planned if scan.key not in skipped_keys]]
        },
        "image": image_section(
            sum_statistics(committed.statistics for committed in (*base, *shards)), config.image
        ),
        "near_duplicates": near_duplicates(plan, (*base, *shards), skipped),
        "suspects": count_suspects(
            (committed.suspects for committed in shards),
            Counter(scan.source for scan in plan.scans if scan.key not in skipped_keys),
        ),
        "skipped": [skip.to_row() for skip in skipped],
        "recipe": plan.recipe,
        "fingerprint": plan.fingerprint,
        "history": [{"fingerprint": plan.fingerprint, "shards": len(shards), "recipe": plan.recipe}],
        "packed_by": f"retfound-dist {_package_version()}",
    }


def merge_manifests(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the manifest of a set to which the sources of `new` were appended."""
    history = [*old["history"], *new["history"]]
    old_near, new_near = old["near_duplicates"], new["near_duplicates"]
    near = {section: old_near[section] + new_near[section] for section in new_near}
    fingerprints = [part["fingerprint"] for part in history]
    return {
        **new,
        "samples": old["samples"] + new["samples"],
        "classes": sorted({*old["classes"], *new["classes"]}),
        "shards": [*old["shards"], *new["shards"]],
        "sources": {**old["sources"], **new["sources"]},
        "near_duplicates": {**near, "first": near["first"][:MAX_NAMED_PAIRS]},
        "suspects": {**old.get("suspects", {}), **new["suspects"]},
        "burnt_in": {
            source: _list_of_comparisons(comparisons)
            for source, comparisons in old.get("burnt_in", {}).items()
        },
        "not_compared": old.get("not_compared", {}),
        "framed": old.get("framed", {}),
        "skipped": [*old["skipped"], *new["skipped"]],
        "recipe": old["recipe"],
        "fingerprint": hashlib.sha256("".join(fingerprints).encode()).hexdigest(),
        "history": history,
    }


def _list_of_comparisons(burnt_in: Any) -> list[dict[str, Any]]:
    """Returns a source's comparisons as a list. Older versions wrote a single comparison."""
    return burnt_in if isinstance(burnt_in, list) else [{"how": "size", "example": "", **burnt_in}]


def near_duplicates(
    plan: PackPlan, shards: Sequence[CommittedShard], skipped: Sequence[Skipped]
) -> dict[str, Any]:
    """Counts pictures that look alike but are of different patients (or volumes). They are kept."""
    skipped_keys = {skip.key for skip in skipped}
    kept_scans = [scan for scan in plan.scans if scan.key not in skipped_keys]
    # A plan that is appended holds only its own scans. The samples of the existing shards come first.
    base_count = sum(committed.shard.samples for committed in shards) - len(kept_scans)
    numbers: dict[Group, int] = {}
    groups = np.zeros(
        base_count + len(kept_scans), np.int64
    )  # samples of the existing shards stay in group 0
    for place, scan in enumerate(kept_scans, start=base_count):
        group = group_of(scan, plan.rule)
        is_alone = isinstance(group, str)
        # Even numbers for images without a group and odd ones for groups, so that no number is used twice.
        groups[place] = 1 + (2 * place + 1 if is_alone else 2 * numbers.setdefault(group, len(numbers)))
    pairs = list(near_pairs(b"".join(committed.difference_hashes for committed in shards), groups))

    def part(place: int) -> str | None:
        return kept_scans[place - base_count].split if place >= base_count else None

    def key(place: int) -> str:
        return kept_scans[place - base_count].key if place >= base_count else _key_at(shards, place)

    return {
        "pairs": len(pairs),
        "across_parts": sum(part(a) != part(b) for a, b, _ in pairs),
        "first": [[key(a), key(b), bits] for a, b, bits in pairs[:MAX_NAMED_PAIRS]],
    }


def _key_at(shards: Sequence[CommittedShard], place: int) -> str:
    for committed in shards:
        if place < committed.shard.samples:
            return committed.keys[place]
        place -= committed.shard.samples
    raise IndexError(place)


def classes(scans: Iterable[Scan]) -> list[str]:
    """Returns all labels, sorted: a class's index is its place in this list."""
    return sorted({scan.label for scan in scans if scan.label is not None})


def count_scans(scans: Collection[Scan]) -> dict[str, Any]:
    """Counts images, patients, volumes and labels, of all scans and of each part."""
    parts = [part for part in PARTS if any(scan.split == part for scan in scans)]
    return {
        **_count_scans(scans),
        "splits": {part: _count_scans([scan for scan in scans if scan.split == part]) for part in parts},
    }


def _count_scans(scans: Collection[Scan]) -> dict[str, Any]:
    labels = Counter(scan.label if scan.label is not None else NO_LABEL for scan in scans)
    return {
        "samples": len(scans),
        "patients": len({scan.patient for scan in scans} - {None}),
        "patient_known": sum(scan.patient is not None for scan in scans),
        "volumes": len({scan.volume for scan in scans} - {None}),
        "labels": dict(sorted(labels.items())),
    }


def _by_source(scans: Iterable[Scan]) -> dict[str, list[Scan]]:
    scans_of_source: dict[str, list[Scan]] = {}
    for scan in scans:
        scans_of_source.setdefault(scan.source, []).append(scan)
    return dict(sorted(scans_of_source.items()))


def _package_version() -> str:
    try:
        return version("retfound-dist")
    except PackageNotFoundError:
        return "(not installed)"
