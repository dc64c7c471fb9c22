"""The manifest of a finished pack, from its plan and its committed shards (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from retfound_dist.schema import PackConfig
from retfound_dist.shardset import FORMAT
from shards.committed import Committed, shard_tree
from shards.plan import PARTS, Plan
from shards.record import Scan
from shards.sample import Skipped
from shards.statistics import describe, total

UNLABELLED = "(none)"


def make_manifest(
    plan: Plan, config: PackConfig, shards: Sequence[Committed], skipped: Sequence[Skipped]
) -> dict[str, Any]:
    """All that `manifest.json` holds."""
    out = {skip.key for skip in skipped}
    return {
        "format": FORMAT,
        "samples": sum(done.shard.samples for done in shards),
        "classes": classes(scan for scan in plan.scans if scan.key not in out),
        "shards": [shard_tree(done.shard) for done in shards],
        "sources": {
            name: {
                "kind": plan.kinds.get(name, config.source.kind),
                **count_scans(scans),
                "skipped": len(found) - len(scans),
                "notes": list(plan.notes.get(name, ())),
            }
            for name, found in _by_source(plan.scans).items()
            for scans in [[scan for scan in found if scan.key not in out]]
        },
        "image": describe(total(done.statistics for done in shards), config.image),
        "skipped": [skip.row() for skip in skipped],
        "recipe": plan.recipe,
        "fingerprint": plan.fingerprint,
        "packed_by": f"retfound-dist {_version()}",
    }


def classes(scans: Iterable[Scan]) -> list[str]:
    """Every label, sorted: a class's index is its place in this list."""
    return sorted({scan.label for scan in scans if scan.label is not None})


def count_scans(scans: Collection[Scan]) -> dict[str, Any]:
    """Images, patients, volumes and labels, of all and of each part."""
    parts = [part for part in PARTS if any(scan.split == part for scan in scans)]
    return {
        **_count(scans),
        "splits": {part: _count([scan for scan in scans if scan.split == part]) for part in parts},
    }


def _count(scans: Collection[Scan]) -> dict[str, Any]:
    labels = Counter(scan.label if scan.label is not None else UNLABELLED for scan in scans)
    return {
        "samples": len(scans),
        "patients": len({scan.patient for scan in scans} - {None}),
        "volumes": len({scan.volume for scan in scans} - {None}),
        "labels": dict(sorted(labels.items())),
    }


def _by_source(scans: Iterable[Scan]) -> dict[str, list[Scan]]:
    found: dict[str, list[Scan]] = {}
    for scan in scans:
        found.setdefault(scan.source, []).append(scan)
    return dict(sorted(found.items()))


def _version() -> str:
    try:
        return version("retfound-dist")
    except PackageNotFoundError:
        return "(not installed)"
