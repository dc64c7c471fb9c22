"""Plans which scan goes into which part, and in which order: pure functions of the scans and two seeds.

The order follows from a hash of seed and name. It depends neither on the order in which a disk lists its
files, nor on a library's random generator.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.config import loading as configs
from retfound_dist.config.schema import PackConfig
from retfound_dist.listing.split_units import TOGETHER
from shards.images.scan import Scan
from shards.people.name_policy import NamePolicy
from shards.people.pseudonyms import original_scan
from shards.planning.scan_groups import (
    Fractions,
    Group,
    check_divisible,
    group_of,
    keys_with_part,
    kind_of,
    parts_of_groups,
)

PARTS = ("train", "val", "test")
FORMAT = 5
"""Raised when the same config and scans would give other shards than before."""
SECRET = "digest_secret"
"""What a recipe says of the secret that names were digested with."""


@dataclass(frozen=True)
class PackPlan:
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
    keys_with_part: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    """Of each source: keys of the images whose part the source says; None: of all of them."""
    choices: Mapping[str, NamePolicy] = field(default_factory=dict)
    """Of each source: whether its keys are names or digests."""
    rule: str = TOGETHER
    """`split.unknown_patient`: what an image is kept together with where its patient is not known."""

    def unit_kind(self, scan: Scan) -> str:
        """The unit that is kept in one part: `patient`, `volume`, `folder`, or the `image` alone."""
        return kind_of(group_of(scan, self.rule))

    def split_kind(self, scan: Scan) -> str:
        """How a scan got its part: from its `source`, or by the kind of its unit."""
        keys_with_part = self.keys_with_part.get(scan.source, frozenset())
        return "source" if keys_with_part is None or scan.key in keys_with_part else self.unit_kind(scan)


def make_plan(
    scans: list[Scan], config: PackConfig, choices: Mapping[str, NamePolicy] | None = None
) -> PackPlan:
    """Assign parts, shuffle each of them, and take the fingerprint; DataError when a patient straddles.

    Empties the list that it is given: millions of scans are not held in memory twice.
    """
    rule = config.split.unknown_patient
    parts = parts_of(scans, config.split.fractions, config.split.seed, rule)
    source_keys = keys_with_part(scans)
    for place, (scan, part) in enumerate(zip(scans, parts, strict=True)):
        if scan.split != part:
            scans[place] = replace(scan, split=part)
    del parts
    ordered = tuple(pack_order(scans, config.out.seed))
    scans.clear()
    settings = recipe(config) | _secrets(choices or {})
    mark = fingerprint(ordered, settings)
    return PackPlan(ordered, mark, settings, keys_with_part=source_keys, choices=choices or {}, rule=rule)


def assign_parts(scans: Sequence[Scan], fractions: Fractions, seed: int, rule: str = TOGETHER) -> list[Scan]:
    """The scans with their part (`parts_of`)."""
    parts = parts_of(scans, fractions, seed, rule)
    return [replace(scan, split=part) for scan, part in zip(scans, parts, strict=True)]


def parts_of(
    scans: Sequence[Scan], fractions: Fractions, seed: int, rule: str = TOGETHER
) -> list[str | None]:
    """The part of each scan: its source's own, else by patient (volume, image), labels spread evenly.

    With all fractions 0 only the source's own parts are kept. DataError where a split must divide a volume.
    """
    group = partial(group_of, rule=rule)
    part_of_group = parts_of_groups(scans, group)
    parts = [scan.split or (part_of_group.get(group(scan)) if part_of_group else None) for scan in scans]
    if sum(fractions):
        # An array holds eight bytes a place; a list of Python's integers takes several times as much.
        free = array("q", (place for place, part in enumerate(parts) if part is None))
        dealt = stratify([scans[place] for place in free], fractions, seed, group)
        for place, part in zip(free, dealt, strict=True):
            parts[place] = part
    return parts


def stratify(
    scans: Sequence[Scan], fractions: Fractions, seed: int, group: Callable[[Scan], Group]
) -> list[str]:
    """A part for each scan, one for all of a group; every label comes as near to the fractions as it can.

    Label by label, groups with many images first, each to the part that lacks most images; then no
    part stays without a label that has groups enough. Arrays only: this is done for millions. What is drawn
    follows from names, also where digests stand for them: the split is the same with both and any secret.
    """
    number, label, words = _number_groups(scans, seed, group)
    check_divisible(len(label), scans, fractions)
    sizes = np.bincount(number, minlength=len(label))
    part = np.zeros(len(label), np.int8)
    for one in np.unique(label):
        groups = np.flatnonzero(label == one)
        groups = groups[np.lexsort((*words[groups].T[::-1], -sizes[groups]))]
        part[groups] = _deal(sizes[groups].tolist(), fractions)
    wanted = sum(share > 0 for share in fractions)
    if len(np.unique(part)) < wanted <= len(label):  # labels of one group each would all go to train
        groups = np.lexsort((*words.T[::-1], -sizes))
        part[groups] = _deal(sizes[groups].tolist(), fractions)
    return [PARTS[one] for one in part[number].tolist()]


def pack_order(scans: Sequence[Scan], seed: int) -> list[Scan]:
    """Part after part (train, val, test, none), in each a fixed random order: volumes spread out."""
    place = {name: i for i, name in enumerate(PARTS)}
    words = np.empty((len(scans), 5), np.uint64)  # part, then the hash: sorted without an object for each
    for row, scan in zip(words, scans, strict=True):
        row[0] = place.get(scan.split or "", len(PARTS))
        # Big-endian, so that the numbers sort as the hash's bytes do, on every machine.
        row[1:] = np.frombuffer(_hash(seed, scan.key), ">u8")
    return [scans[i] for i in np.lexsort(words.T[::-1])]


def recipe(config: PackConfig) -> dict[str, Any]:
    """The settings that change the packed bytes. Target, workers and budgets do not."""
    tree = configs.to_dict(config)
    settings = {
        **_sources(config),
        # Settings that came later are left out at their defaults.
        # So sets that were packed before them keep their fingerprint, and packing goes on with them.
        "image": {k: v for k, v in tree["image"].items() if v or k != "leave_out_suspects"},
        "split": {k: v for k, v in tree["split"].items() if k != "unknown_patient" or v != TOGETHER},
        "out": {key: tree["out"][key] for key in ("name", "shard_mb", "seed")},
    }
    return {**settings, "phantom": tree["phantom"]} if _is_drawn(config) else settings


def _sources(config: PackConfig) -> dict[str, Any]:
    if not config.sources:
        return {"source": {"kind": config.source.kind}}
    return {"sources": [{"kind": source.kind, "name": source.name} for source in config.sources]}


def _secrets(choices: Mapping[str, NamePolicy]) -> dict[str, Any]:
    """By source, the mark of the secret of its digests; nothing where there are none."""
    marks = {source: choice.mark for source, choice in sorted(choices.items()) if choice.mark}
    return {SECRET: marks} if marks else {}


def _is_drawn(config: PackConfig) -> bool:
    return any(source.kind == "phantom" for source in config.all_sources)


def fingerprint(scans: Sequence[Scan], settings: Mapping[str, Any]) -> str:
    """sha256 of the settings and of every scan's name, size and fields."""
    digest = _begin(settings)
    for scan in scans:
        digest.update(_row(scan))
    return digest.hexdigest()


class Marks:
    """Digests of all that a shard's bytes follow from: the settings, and the plan up to the next shard.

    The next shard's first scan is included, because it had no room in this one; so is an end of the plan.
    Ask in rising order of places: going back hashes the plan again.
    """

    def __init__(self, plan: PackPlan) -> None:
        self._plan = plan
        self._digest, self._done = _begin(plan.recipe), 0

    def at(self, place: int) -> str:
        """The mark of a shard after which the next one begins at `place`."""
        if place < self._done:
            self._digest, self._done = _begin(self._plan.recipe), 0
        for scan in islice(self._plan.scans, self._done, place):
            self._digest.update(_row(scan))
        self._done = max(self._done, min(place, len(self._plan.scans)))
        # A copy goes on: hashing the plan from its start for each shard would take the square of its length.
        whole = self._digest.copy()
        whole.update(_row(self._plan.scans[place]) if place < len(self._plan.scans) else b"end")
        return whole.hexdigest()


def _begin(settings: Mapping[str, Any]) -> hashlib._Hash:
    return hashlib.sha256(json.dumps([FORMAT, settings], sort_keys=True).encode())


def _row(scan: Scan) -> bytes:
    return json.dumps([scan.key, scan.origin, scan.size, scan.fields()], sort_keys=True).encode()


def _number_groups(
    scans: Sequence[Scan], seed: int, group_in: Callable[[Scan], Group]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """Each scan's group as a number; each group's commonest label as a number; (groups, 4) of its hash.

    Labels are numbered by name; of equally common ones a group has the first.
    """
    names = {name: n for n, name in enumerate(sorted({original_scan(scan).label or "" for scan in scans}))}
    known: dict[Group, int] = {}
    number, label = np.zeros(len(scans), np.int64), np.zeros(len(scans), np.int64)
    words = np.zeros((len(scans), 4), np.uint64)
    counts: dict[int, Counter[int]] = defaultdict(Counter)
    groups = 0
    for place, scan in enumerate(scans):
        # By the names behind digests: by the digests another secret would draw another split.
        group, original = group_in(scan), original_scan(scan)
        code = names[original.label or ""]
        mine = groups if isinstance(group, str) else known.setdefault(group, groups)
        if mine == groups:
            label[mine] = code
            spelt = group if original is scan else group_in(original)
            words[mine] = np.frombuffer(_hash(seed, *([spelt] if isinstance(spelt, str) else spelt)), ">u8")
            groups += 1
        if not isinstance(group, str):
            counts[mine][code] += 1
        number[place] = mine
    for mine, count in counts.items():
        label[mine] = max(sorted(count), key=count.__getitem__)
    return number, label[:groups], words[:groups]


def _deal(sizes: Sequence[int], fractions: Fractions) -> list[int]:
    """The part of each group, as its place in PARTS."""
    wanted = [place for place, share in enumerate(fractions) if share > 0]
    lacking = [share * sum(sizes) for share in fractions]
    part = []
    # The largest groups come first, while every part still lacks enough to take them.
    for size in sizes:
        part.append(max(wanted, key=lacking.__getitem__))
        lacking[part[-1]] -= size
    return _fill_empty(part, wanted)


def _fill_empty(part: list[int], wanted: Sequence[int]) -> list[int]:
    """Give each empty part the smallest patient of the part that has most patients."""
    for place in wanted:
        group_counts = Counter(part)
        if group_counts[place] or not group_counts:
            continue
        donor = max(wanted, key=lambda other: group_counts[other])
        if group_counts[donor] > 1:
            part[len(part) - 1 - part[::-1].index(donor)] = place
    return part


def _hash(seed: int, *names: str) -> bytes:
    # No name holds a NUL, so that (`a`, `bc`) and (`ab`, `c`) have other hashes.
    return hashlib.sha256("\0".join([str(seed), *names]).encode(errors="surrogateescape")).digest()
