"""Which scan goes into which part and where in it: pure functions of the scans and two seeds.

Everything is ordered by a hash of seed and name, so that neither the order in which a disk lists its
files nor a library's random generator has a say.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from retfound_dist import config as configs
from retfound_dist.errors import DataError
from retfound_dist.schema import PackConfig
from shards.record import Scan

PARTS = ("train", "val", "test")
FORMAT = 4
"""Raised when the same config and scans would give other shards than before."""
Group = tuple[str, str] | str
"""(source, patient), or the key of an image whose patient is not known."""
Fractions = tuple[float, float, float]


@dataclass(frozen=True)
class Plan:
    """Every scan in the order in which it is packed, split by parts."""

    scans: tuple[Scan, ...]
    fingerprint: str
    """Of all that the shards' bytes follow from."""
    recipe: dict[str, Any]
    """The part of the config that the shards' bytes follow from."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Kind of each source by its name."""
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of each source by its name: what differs from the set as it was published."""


def make_plan(scans: list[Scan], config: PackConfig) -> Plan:
    """Assign parts, shuffle each of them, and take the fingerprint; DataError when a patient straddles.

    Takes the list over: millions of scans are not held twice.
    """
    part = parts_of(scans, config.split.fractions, config.split.seed)
    for place, scan in enumerate(scans):
        scans[place] = _in_part(scan, part)
    del part
    ordered = tuple(shuffle(scans, config.out.seed))
    scans.clear()
    settings = recipe(config)
    return Plan(ordered, fingerprint(ordered, settings), settings)


def assign_parts(scans: Sequence[Scan], fractions: Fractions, seed: int) -> list[Scan]:
    """The scans with their part: the source's own, else by patient so that labels are spread evenly.

    With all fractions 0 only the source's own parts are kept.
    """
    part = parts_of(scans, fractions, seed)
    return [_in_part(scan, part) for scan in scans]


def parts_of(scans: Sequence[Scan], fractions: Fractions, seed: int) -> dict[Group, str]:
    """Patient -> part: the source's own where it has one, else by `stratify`."""
    part = _given_parts(scans)
    if sum(fractions):
        free = [scan for scan in scans if scan.split is None and group_of(scan) not in part]
        part |= stratify(free, fractions, seed)
    return part


def _in_part(scan: Scan, part: Mapping[Group, str]) -> Scan:
    if scan.split is not None or not part:
        return scan
    return replace(scan, split=part.get(group_of(scan)))


def stratify(scans: Sequence[Scan], fractions: Fractions, seed: int) -> dict[Group, str]:
    """A part for each patient, so that every label comes as near to the fractions as it can.

    Label by label, patients with many images first, each to the part that lacks most images; then no
    part stays without a label that has patients enough.
    """
    by_label, sizes = _groups_by_label(scans)
    part: dict[Group, str] = {}
    for label in sorted(by_label):
        by_label[label].sort(key=lambda g: (-sizes.get(g, 1), _hash(seed, *((g,) if type(g) is str else g))))
        part |= _deal(by_label[label], sizes, fractions)
    return part


def shuffle(scans: Sequence[Scan], seed: int) -> list[Scan]:
    """Part after part (train, val, test, none), in each a fixed random order: volumes spread out."""
    place = {name: i for i, name in enumerate(PARTS)}
    words = np.empty((len(scans), 5), np.uint64)  # part, then the hash: sorted without an object for each
    for row, scan in zip(words, scans, strict=True):
        row[0] = place.get(scan.split or "", len(PARTS))
        row[1:] = np.frombuffer(_hash(seed, scan.key), ">u8")
    return [scans[i] for i in np.lexsort(words.T[::-1])]


def recipe(config: PackConfig) -> dict[str, Any]:
    """The settings that change what is packed; where it goes, who works and what is tolerated do not."""
    tree = configs.to_dict(config)
    kept = {
        **_sources(config),
        "image": tree["image"],
        "split": tree["split"],
        "out": {key: tree["out"][key] for key in ("name", "shard_mb", "seed")},
    }
    return {**kept, "phantom": tree["phantom"]} if _is_drawn(config) else kept


def _sources(config: PackConfig) -> dict[str, Any]:
    if not config.sources:
        return {"source": {"kind": config.source.kind}}
    return {"sources": [{"kind": source.kind, "name": source.name} for source in config.sources]}


def _is_drawn(config: PackConfig) -> bool:
    return any(source.kind == "phantom" for source in config.all_sources)


def fingerprint(scans: Sequence[Scan], settings: Mapping[str, Any]) -> str:
    """sha256 of the settings and of every scan's name, size and fields."""
    digest = _begin(settings)
    for scan in scans:
        digest.update(_row(scan))
    return digest.hexdigest()


class Marks:
    """What the bytes of a shard follow from: the settings, and the plan up to where the next one begins.

    The scan there counts, for it is the one that had no room; so does an end of the plan. Places are
    best asked in rising order.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._digest, self._done = _begin(plan.recipe), 0

    def at(self, place: int) -> str:
        """The mark of a shard after which the next one begins at `place`."""
        if place < self._done:
            self._digest, self._done = _begin(self._plan.recipe), 0
        for scan in islice(self._plan.scans, self._done, place):
            self._digest.update(_row(scan))
        self._done = max(self._done, min(place, len(self._plan.scans)))
        whole = self._digest.copy()
        whole.update(_row(self._plan.scans[place]) if place < len(self._plan.scans) else b"end")
        return whole.hexdigest()


def _begin(settings: Mapping[str, Any]) -> hashlib._Hash:
    return hashlib.sha256(json.dumps([FORMAT, settings], sort_keys=True).encode())


def _row(scan: Scan) -> bytes:
    return json.dumps([scan.key, scan.origin, scan.size, scan.fields()], sort_keys=True).encode()


def group_of(scan: Scan) -> Group:
    """What must not straddle parts: the patient within a source, or the image itself."""
    return scan.key if scan.patient is None else (scan.source, scan.patient)


def _given_parts(scans: Sequence[Scan]) -> dict[Group, str]:
    """The source's own part of each patient."""
    part: dict[Group, str] = {}
    for scan in scans:
        if scan.split is None or scan.patient is None:
            continue
        known = part.setdefault(group_of(scan), scan.split)
        if known != scan.split:
            raise DataError(
                f"patient {scan.patient} of source {scan.source} is in {known} and in {scan.split} "
                f"({scan.origin}): a patient must not straddle parts; correct the split, or leave it out "
                "and set split.fractions"
            )
    return part


def _groups_by_label(scans: Sequence[Scan]) -> tuple[dict[str, list[Group]], dict[Group, int]]:
    """Groups by their commonest label (the first by name where several are); images of those with several."""
    counts: dict[Group, Counter[str]] = defaultdict(Counter)
    by_label: dict[str, list[Group]] = defaultdict(list)
    for scan in scans:
        if scan.patient is None:
            by_label[scan.label or ""].append(scan.key)
        else:
            counts[group_of(scan)][scan.label or ""] += 1
    for group, count in counts.items():
        by_label[max(sorted(count), key=count.__getitem__)].append(group)
    return by_label, {group: count.total() for group, count in counts.items()}


def _deal(groups: Sequence[Group], sizes: Mapping[Group, int], fractions: Fractions) -> dict[Group, str]:
    wanted = [name for name, share in zip(PARTS, fractions, strict=True) if share > 0]
    total = sum(sizes.get(g, 1) for g in groups)
    lacking = {name: share * total for name, share in zip(PARTS, fractions, strict=True) if share > 0}
    part: dict[Group, str] = {}
    for group in groups:
        part[group] = max(wanted, key=lambda name: lacking[name])
        lacking[part[group]] -= sizes.get(group, 1)
    return _fill_empty(part, groups, wanted)


def _fill_empty(part: dict[Group, str], groups: Sequence[Group], wanted: Sequence[str]) -> dict[Group, str]:
    """Give each empty part the smallest patient of the part that has most patients."""
    for name in wanted:
        held = Counter(part.values())
        if held[name] or not held:
            continue
        donor = max(wanted, key=lambda other: held[other])
        if held[donor] > 1:
            part[next(g for g in reversed(groups) if part[g] == donor)] = name
    return part


def _hash(seed: int, *names: str) -> bytes:
    return hashlib.sha256("\0".join([str(seed), *names]).encode(errors="surrogateescape")).digest()
