"""Counts known patients and how scans got their parts, as numbers and in words (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from retfound_dist.listing import split_units
from shards.images.scan import Scan
from shards.planning.pack_plan import PackPlan


def count_split(scans: Iterable[Scan], plan: PackPlan) -> dict[str, int]:
    """Counts images by the origin of their part: `source`, `patient`, `volume`, `folder` or `image`."""
    return dict(Counter(plan.split_kind(scan) for scan in scans if scan.split is not None))


def count_straddling(scans: Iterable[Scan]) -> int:
    """Counts patients with images in more than one part, for the data card."""
    first: dict[str, str | None] = {}
    return len({s.patient for s in scans if s.patient and first.setdefault(s.patient, s.split) != s.split})


def known_in_words(counts: Mapping[str, Any]) -> str:
    """Returns `patient known for 16 of 20 images`; empty for sets of versions that did not count this."""
    with_patient, images = counts.get("patient_known"), counts["samples"]
    if with_patient is None:
        return ""
    amount = "all" if with_patient == images else f"{with_patient:,} of"
    return f"patient known for {amount} {images:,} images"


def split_in_words(counts: Mapping[str, int]) -> str:
    """Returns `split by patient (20 images)`, `split by the source (...)`; empty if there are no parts."""
    by_unit = split_units.describe_units(counts)
    by_source = counts.get("source", 0)
    phrases = [f"by the source ({by_source:,} images)"] * bool(by_source) + [by_unit] * bool(by_unit)
    return f"split {', '.join(phrases)}" if phrases else ""


def card_lines(sources: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line per source on how it was split; then whether a patient can be in two parts."""
    for name, counts in sources.items():
        split_words = split_in_words(counts.get("split_by", {}))
        phrases = [text for text in (known_in_words(counts), split_words or "no parts") if text]
        yield f"- {name}: {'; '.join(phrases)}"
    yield ""
    yield _parts_sentence(sources)


def _parts_sentence(sources: Mapping[str, Any]) -> str:
    """Returns a sentence: can one patient be in two parts?"""
    counted = [source for source in sources.values() if "patient_known" in source]
    if len(counted) < len(sources):
        return "An older version packed some sources: whether a patient is in two parts is not known."
    images = sum(source["samples"] for source in counted)
    with_patient = sum(source["patient_known"] for source in counted)
    if not any(source.get("split_by") for source in counted):
        return f"There are no parts. The patient is known for {with_patient:,} of {images:,} images."
    straddling = sum(source.get("straddling", 0) for source in counted)
    if straddling:
        return f"{straddling:,} patients are in two parts: scores on these parts will be too high."
    if with_patient == images:
        several = " (patients of different sources count as different people)" if len(counted) > 1 else ""
        return f"No patient is in two parts: every image's patient is known and was checked{several}."
    unknown = f"The patient is not known for {images - with_patient:,} of {images:,} images"
    if not with_patient:
        unknown = "No patient is known"
    kinds: Counter[str] = Counter()
    for source in counted:
        kinds.update(source.get("split_by", {}))
    if kinds["image"]:
        effect = "images of one patient can be in two parts, and scores on these parts can be too high"
    elif kinds["source"]:
        effect = "whether a patient is in two of the source's parts could not be checked"
    else:
        effect = "each volume is in one part, but two volumes of one patient can be in two parts"
    return f"{unknown}: {effect}."
