"""Plans which scan goes into which part, and in which order: pure functions of the scans and two seeds.

The order is that of a hash of seed and key. It does not depend on the order in which a disk lists its files,
nor on a library's random generator.
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
from retfound_dist.listing.split_units import KEEP_VOLUMES, assign_to_parts
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
"""Increased when the same config and scans would give other shards than before."""
SECRET = "digest_secret"
"""The recipe's entry for the secret behind the digests of names."""


@dataclass(frozen=True)
class PackPlan:
    """Every scan in the order in which it is packed, split by parts."""

    scans: tuple[Scan, ...]
    fingerprint: str
    """Digest of everything that determines the shards' bytes."""
    recipe: dict[str, Any]
    """The settings that determine the shards' bytes."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Source -> its kind."""
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Source -> notes: skipped files, differences from the published set."""
    keys_with_part: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    """Source -> keys of the images whose part comes from the source; None: all images."""
    name_policies: Mapping[str, NamePolicy] = field(default_factory=dict)
    """Source -> whether its keys are names or digests."""
    rule: str = KEEP_VOLUMES
    """`split.unknown_patient`: which images stay together where the patient is not known."""

    def unit_kind(self, scan: Scan) -> str:
        """The unit that is kept in one part: `patient`, `volume`, `folder`, or the `image` alone."""
        return kind_of(group_of(scan, self.rule))

    def split_kind(self, scan: Scan) -> str:
        """Where a scan's part comes from: `source`, or the kind of its unit."""
        keys_with_part = self.keys_with_part.get(scan.source, frozenset())
        return "source" if keys_with_part is None or scan.key in keys_with_part else self.unit_kind(scan)


def make_plan(
    scans: list[Scan], config: PackConfig, name_policies: Mapping[str, NamePolicy] | None = None
) -> PackPlan:
    """Assign parts, shuffle each of them, compute the fingerprint; DataError when a patient is in two parts.

    Empties the given list, so that millions of scans are not in memory twice.
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
    settings = recipe(config) | _secrets(name_policies or {})
    return PackPlan(
        ordered,
        fingerprint(ordered, settings),
        settings,
        keys_with_part=source_keys,
        name_policies=name_policies or {},
        rule=rule,
    )


def assign_parts(
    scans: Sequence[Scan], fractions: Fractions, seed: int, rule: str = KEEP_VOLUMES
) -> list[Scan]:
    """Returns the scans with their parts (`parts_of`)."""
    parts = parts_of(scans, fractions, seed, rule)
    return [replace(scan, split=part) for scan, part in zip(scans, parts, strict=True)]


def parts_of(
    scans: Sequence[Scan], fractions: Fractions, seed: int, rule: str = KEEP_VOLUMES
) -> list[str | None]:
    """Returns the part of each scan: the source's, else by patient (or volume, image), labels spread evenly.

    With all fractions 0 only parts of the source are used. DataError where a split must divide a volume.
    """
    group = partial(group_of, rule=rule)
    part_of_group = parts_of_groups(scans, group)
    parts = [scan.split or (part_of_group.get(group(scan)) if part_of_group else None) for scan in scans]
    if sum(fractions):
        # An array takes eight bytes per place; a list of Python integers takes several times as much.
        free = array("q", (place for place, part in enumerate(parts) if part is None))
        new_parts = stratify([scans[place] for place in free], fractions, seed, group)
        for place, part in zip(free, new_parts, strict=True):
            parts[place] = part
    return parts


def stratify(
    scans: Sequence[Scan], fractions: Fractions, seed: int, group: Callable[[Scan], Group]
) -> list[str]:
    """Returns a part for each scan, the same for a whole group; every label is spread as the fractions say.

    Label by label, groups with many images come first. Each goes to the part that still lacks the most
    images. A part without any group of a label then gets one, if the label has enough groups. NumPy arrays,
    because there may be millions of scans. The hash is of the original names, so the split is the same for
    names and digests, with any secret.
    """
    numbers, labels, hashes = _number_groups(scans, seed, group)
    check_divisible(len(labels), scans, fractions)
    sizes = np.bincount(numbers, minlength=len(labels))
    parts = np.zeros(len(labels), np.int8)
    for label in np.unique(labels):
        groups = np.flatnonzero(labels == label)
        groups = groups[np.lexsort((*hashes[groups].T[::-1], -sizes[groups]))]
        parts[groups] = _assign_groups(sizes[groups].tolist(), fractions)
    part_count = sum(share > 0 for share in fractions)
    if len(np.unique(parts)) < part_count <= len(labels):  # with one group per label all would go to train
        groups = np.lexsort((*hashes.T[::-1], -sizes))
        parts[groups] = _assign_groups(sizes[groups].tolist(), fractions)
    return [PARTS[part] for part in parts[numbers].tolist()]


def pack_order(scans: Sequence[Scan], seed: int) -> list[Scan]:
    """Returns the scans part by part (train, val, test, none), each shuffled in a fixed random order."""
    place = {name: i for i, name in enumerate(PARTS)}
    # One row per scan: its part, then its hash. Sorting an array needs no object per scan.
    sort_keys = np.empty((len(scans), 5), np.uint64)
    for row, scan in zip(sort_keys, scans, strict=True):
        row[0] = place.get(scan.split or "", len(PARTS))
        # Big-endian, so that the numbers sort like the bytes of the hash on every machine.
        row[1:] = np.frombuffer(_hash(seed, scan.key), ">u8")
    return [scans[i] for i in np.lexsort(sort_keys.T[::-1])]


def recipe(config: PackConfig) -> dict[str, Any]:
    """Returns the settings that change the packed bytes. URL, workers and budgets do not."""
    tree = configs.to_dict(config)
    image, split = tree["image"], tree["split"]
    # A setting that a later version added is left out while it has its default. So a set that an older
    # version packed keeps its fingerprint, and an interrupted pack of that version continues.
    if not image["leave_out_suspects"]:
        del image["leave_out_suspects"]
    if split["unknown_patient"] == KEEP_VOLUMES:
        del split["unknown_patient"]
    settings = {
        **_sources(config),
        "image": image,
        "split": split,
        "out": {key: tree["out"][key] for key in ("name", "shard_mb", "seed")},
    }
    return {**settings, "phantom": tree["phantom"]} if _is_drawn(config) else settings


def _sources(config: PackConfig) -> dict[str, Any]:
    if not config.sources:
        return {"source": {"kind": config.source.kind}}
    return {"sources": [{"kind": source.kind, "name": source.name} for source in config.sources]}


def _secrets(name_policies: Mapping[str, NamePolicy]) -> dict[str, Any]:
    """Returns the fingerprint of each source's secret; an empty dict if no source has digests."""
    secrets = {source: policy.secret for source, policy in sorted(name_policies.items()) if policy.secret}
    return {SECRET: secrets} if secrets else {}


def _is_drawn(config: PackConfig) -> bool:
    return any(source.kind == "phantom" for source in config.all_sources)


def fingerprint(scans: Sequence[Scan], settings: Mapping[str, Any]) -> str:
    """Returns the sha256 of the settings and of every scan's key, path, size and fields."""
    digest = _begin(settings)
    for scan in scans:
        digest.update(_row(scan))
    return digest.hexdigest()


class PlanDigests:
    """Digests of everything that determines a shard's bytes: the settings, and the plan up to the next shard.

    The first scan of the next shard is included, because this shard ended when it did not fit. So is the end
    of the plan. Ask for places in rising order: going back hashes the plan again.
    """

    def __init__(self, plan: PackPlan) -> None:
        self._plan = plan
        self._digest, self._done = _begin(plan.recipe), 0

    def at(self, place: int) -> str:
        """Returns the digest for a shard after which the next one begins at `place`."""
        if place < self._done:
            self._digest, self._done = _begin(self._plan.recipe), 0
        for scan in islice(self._plan.scans, self._done, place):
            self._digest.update(_row(scan))
        self._done = max(self._done, min(place, len(self._plan.scans)))
        # A copy, because hashing the plan from its start for each shard would take quadratic time.
        digest = self._digest.copy()
        digest.update(_row(self._plan.scans[place]) if place < len(self._plan.scans) else b"end")
        return digest.hexdigest()


def _begin(settings: Mapping[str, Any]) -> hashlib._Hash:
    return hashlib.sha256(json.dumps([FORMAT, settings], sort_keys=True).encode())


def _row(scan: Scan) -> bytes:
    return json.dumps([scan.key, scan.origin, scan.size, scan.json_fields()], sort_keys=True).encode()


def _number_groups(
    scans: Sequence[Scan], seed: int, group_in: Callable[[Scan], Group]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """Returns each scan's group as a number, and each group's commonest label and hash (4 words).

    Labels are numbered by name. Of equally common labels a group gets the first.
    """
    names = sorted({original_scan(scan).label or "" for scan in scans})
    number_of_label = {name: number for number, name in enumerate(names)}
    number_of_group: dict[Group, int] = {}
    numbers, labels = np.zeros(len(scans), np.int64), np.zeros(len(scans), np.int64)
    hashes = np.zeros((len(scans), 4), np.uint64)
    label_counts: dict[int, Counter[int]] = defaultdict(Counter)
    groups = 0
    for place, scan in enumerate(scans):
        # The hash is of the original names: with digests another secret would give another split.
        group, original = group_in(scan), original_scan(scan)
        label = number_of_label[original.label or ""]
        number = groups if isinstance(group, str) else number_of_group.setdefault(group, groups)
        if number == groups:
            labels[number] = label
            named = group if original is scan else group_in(original)
            hashes[number] = np.frombuffer(
                _hash(seed, *([named] if isinstance(named, str) else named)), ">u8"
            )
            groups += 1
        if not isinstance(group, str):
            label_counts[number][label] += 1
        numbers[place] = number
    for number, counts in label_counts.items():
        labels[number] = max(sorted(counts), key=counts.__getitem__)
    return numbers, labels[:groups], hashes[:groups]


def _assign_groups(sizes: Sequence[int], fractions: Fractions) -> list[int]:
    """Returns the part of each group, as its place in PARTS."""
    filled_parts = [place for place, share in enumerate(fractions) if share > 0]
    # The sizes fall: large groups are assigned first, while every part has room for them.
    places = assign_to_parts(sizes, [fractions[place] * sum(sizes) for place in filled_parts])
    return _fill_empty([filled_parts[place] for place in places], filled_parts)


def _fill_empty(parts: list[int], filled_parts: Sequence[int]) -> list[int]:
    """Give each empty part the smallest group of the part that has most groups."""
    for place in filled_parts:
        group_counts = Counter(parts)
        if group_counts[place] or not group_counts:
            continue
        donor = max(filled_parts, key=lambda other: group_counts[other])
        if group_counts[donor] > 1:
            parts[len(parts) - 1 - parts[::-1].index(donor)] = place
    return parts


def _hash(seed: int, *names: str) -> bytes:
    # Names contain no NUL, so (`a`, `bc`) and (`ab`, `c`) have different hashes.
    return hashlib.sha256("\0".join([str(seed), *names]).encode(errors="surrogateescape")).digest()
