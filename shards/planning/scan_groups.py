"""Which scans must stay in one part: those of a patient, else of a volume or folder (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from retfound_dist.errors import DataError
from retfound_dist.listing.split_units import TOGETHER, unit_of
from shards.images.scan import Scan

Group = tuple[str, ...] | str
"""(source, patient), (source, `volume` or `folder`, its name), or the key of an image alone."""
Fractions = tuple[float, float, float]


def kind_of(group: Group) -> str:
    """`patient`, `volume`, `folder` or `image`."""
    return "image" if isinstance(group, str) else "patient" if len(group) == 2 else group[1]


def group_of(scan: Scan, rule: str = TOGETHER) -> Group:
    """The group that must stay in one part: patient, volume or folder within a source, or the image alone."""
    kind, name = unit_of(scan.key, scan.patient, scan.group, scan.volume, rule)
    if kind == "image":
        return scan.key
    # With the source: the lists of two hospitals both have a patient 1.
    return (scan.source, name) if kind == "patient" else (scan.source, kind, name)


def parts_of_groups(scans: Sequence[Scan], group: Callable[[Scan], Group]) -> dict[Group, str]:
    """The source's own part of each patient and volume; DataError where one is in two."""
    part: dict[Group, str] = {}
    for scan in scans:
        mine = group(scan) if scan.split is not None else ""
        if scan.split is None or isinstance(mine, str):
            continue
        known = part.setdefault(mine, scan.split)
        if known != scan.split:
            group_name = f"{kind_of(mine)} {mine[-1]}"
            raise DataError(
                f"{group_name} of source {scan.source} is in {known} and in {scan.split} "
                f"({scan.origin}): a patient must not straddle parts; correct the split, or leave it out "
                "and set split.fractions"
            )
    return part


def keys_with_part(scans: Sequence[Scan]) -> dict[str, frozenset[str] | None]:
    """`PackPlan.keys_with_part`, in few objects: a source mostly says the part of all images or of none."""
    counts = Counter(scan.source for scan in scans)
    with_part = Counter(scan.source for scan in scans if scan.split is not None)
    keys_of_source: dict[str, frozenset[str] | None] = {}
    for source in with_part:
        keys = (scan.key for scan in scans if scan.source == source and scan.split is not None)
        keys_of_source[source] = None if with_part[source] == counts[source] else frozenset(keys)
    return keys_of_source


def check_divisible(groups: int, scans: Sequence[Scan], fractions: Fractions) -> None:
    """DataError where no patient is known and there are fewer volumes than wanted parts."""
    wanted = sum(share > 0 for share in fractions)
    if groups >= wanted or len(scans) < wanted or any(scan.patient for scan in scans):
        return
    named = sorted({str(scan.group or scan.volume) for scan in scans})
    raise DataError(
        f"split.fractions asks for {wanted} parts, but the {len(scans):,} images are of {groups} volume"
        f"{'s' if groups > 1 else ''} ({', '.join(named)}) and no patient is known: slices of one eye must "
        "stay together; leave split.fractions out, name the patients in a manifest.csv, or part the slices "
        "all the same with split.unknown_patient=image"
    )
