"""Counts known patients and how the parts were made, for the manifest and in words (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from retfound_dist.listing import split_units
from shards.images.scan import Scan
from shards.planning.pack_plan import PackPlan


def count_split(scans: Iterable[Scan], plan: PackPlan) -> dict[str, int]:
    """Counts images by how they got their part: `source`, `patient`, `volume`, `folder` or `image`."""
    return dict(Counter(plan.split_kind(scan) for scan in scans if scan.split is not None))


def count_straddling(scans: Iterable[Scan]) -> int:
    """Counts patients with images in more than one part. The card states the result."""
    first: dict[str, str | None] = {}
    return len({s.patient for s in scans if s.patient and first.setdefault(s.patient, s.split) != s.split})


def known_in_words(counts: Mapping[str, Any]) -> str:
    """`patient known of 16 of 20 images`; empty for sets that were packed before this was counted."""
    known, images = counts.get("patient_known"), counts["samples"]
    if known is None:
        return ""
    return f"patient known of {'all' if known == images else f'{known:,} of'} {images:,} images"


def split_in_words(counts: Mapping[str, int]) -> str:
    """`split by patient (20 images)`, `split as the source says (...)`; empty where there are no parts."""
    ours = split_units.describe_units(counts)
    by_source = counts.get("source", 0)
    phrases = [f"as the source says ({by_source:,} images)"] * bool(by_source) + [ours] * bool(ours)
    return f"split {', '.join(phrases)}" if phrases else ""


def card_lines(sources: Mapping[str, Any]) -> Iterator[str]:
    """For each source how its parts were made; then whether a patient can be in two of them."""
    for name, counts in sources.items():
        split_words = split_in_words(counts.get("split_by", {}))
        phrases = [text for text in (known_in_words(counts), split_words or "no parts") if text]
        yield f"- {name}: {'; '.join(phrases)}"
    yield ""
    yield _verdict(sources)


def _verdict(sources: Mapping[str, Any]) -> str:
    counted = [source for source in sources.values() if "patient_known" in source]
    if len(counted) < len(sources):
        return "Whether a patient is in two parts is not recorded for what older versions packed."
    images = sum(source["samples"] for source in counted)
    known = sum(source["patient_known"] for source in counted)
    if not any(source.get("split_by") for source in counted):
        return f"There are no parts. The patient of {known:,} of {images:,} images is known."
    straddling = sum(source.get("straddling", 0) for source in counted)
    if straddling:
        return f"{straddling:,} patients are in two parts: scores on these parts are too good."
    if known == images:
        several = " (of different sources patients are taken for different ones)" if len(counted) > 1 else ""
        return f"No patient is in two parts: every image's patient is known and was checked{several}."
    first = f"The patient of {images - known:,} of {images:,} images is not known"
    if not known:
        first = "No patient is known"
    kinds: Counter[str] = Counter()
    for source in counted:
        kinds.update(source.get("split_by", {}))
    if kinds["image"]:
        then = "images of one patient can be in two parts, and scores on such parts too good"
    elif kinds["source"]:
        then = "whether the source's own parts keep patients apart could not be checked"
    else:
        then = "volumes are in one part each, and two volumes of one patient can be in two"
    return f"{first}: {then}."
