"""Finds scans that must stay in one part: those of a patient, else of a volume or folder (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from retfound_dist.errors import DataError
from retfound_dist.listing.split_units import KEEP_VOLUMES, unit_of
from shards.images.scan import Scan

Group = tuple[str, ...] | str
"""(source, patient), (source, `volume` or `folder`, its name), or the key of an image alone."""
Fractions = tuple[float, float, float]


def kind_of(group: Group) -> str:
    """`patient`, `volume`, `folder` or `image`."""
    return "image" if isinstance(group, str) else "patient" if len(group) == 2 else group[1]


def group_of(scan: Scan, rule: str = KEEP_VOLUMES) -> Group:
    """Returns the group that must stay in one part: a patient, else a folder, else a volume, else the image.

    `rule` is the setting `split.unknown_patient`.
    """
    kind, name = unit_of(scan.key, scan.patient, scan.group, scan.volume, rule)
    if kind == "image":
        return scan.key
    # With the source's name, because two hospitals may both have a patient 1.
    return (scan.source, name) if kind == "patient" else (scan.source, kind, name)


def parts_of_groups(scans: Sequence[Scan], group: Callable[[Scan], Group]) -> dict[Group, str]:
    """Returns the part of each patient and volume in the source; DataError where one is in two parts."""
    part: dict[Group, str] = {}
    for scan in scans:
        scan_group = group(scan) if scan.split is not None else ""
        if scan.split is None or isinstance(scan_group, str):
            continue
        first_part = part.setdefault(scan_group, scan.split)
        if first_part != scan.split:
            group_name = f"{kind_of(scan_group)} {scan_group[-1]}"
            raise DataError(
                f"{group_name} of source {scan.source} is in {first_part} and in {scan.split} "
                f"({scan.origin}): all its images must be in one part; correct the split, or remove it "
                "and set split.fractions"
            )
    return part


def keys_with_part(scans: Sequence[Scan]) -> dict[str, frozenset[str] | None]:
    """Returns `PackPlan.keys_with_part`. None instead of all keys saves memory in the usual case."""
    counts = Counter(scan.source for scan in scans)
    with_part = Counter(scan.source for scan in scans if scan.split is not None)
    keys_of_source: dict[str, frozenset[str] | None] = {}
    for source in with_part:
        keys = (scan.key for scan in scans if scan.source == source and scan.split is not None)
        keys_of_source[source] = None if with_part[source] == counts[source] else frozenset(keys)
    return keys_of_source


def check_divisible(groups: int, scans: Sequence[Scan], fractions: Fractions) -> None:
    """Raises DataError if no patient is known and there are fewer volumes than parts."""
    part_count = sum(share > 0 for share in fractions)
    if groups >= part_count or len(scans) < part_count or any(scan.patient for scan in scans):
        return
    volumes = sorted({str(scan.group or scan.volume) for scan in scans})
    raise DataError(
        f"split.fractions asks for {part_count} parts, but the {len(scans):,} images are of {groups} volume"
        f"{'s' if groups > 1 else ''} ({', '.join(volumes)}) and no patient is known: slices of one eye must "
        "stay together; remove split.fractions, name the patients in a manifest.csv, or allow slices of one "
        "eye in two parts with split.unknown_patient=image"
    )
