"""What is known of patients, and how the parts were made: counted for the manifest, said in words (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from retfound_dist.listing import split_units
from shards.images.scan import Scan
from shards.planning.pack_plan import PackPlan


def count_split(scans: Iterable[Scan], plan: PackPlan) -> dict[str, int]:
    """Images that came into their part by their `source`, or by `patient`, `volume`, `folder`, `image`."""
    return dict(Counter(plan.split_kind(scan) for scan in scans if scan.split is not None))


def count_straddling(scans: Iterable[Scan]) -> int:
    """Patients with images in more than one part: looked at once more, for the card tells of them."""
    first: dict[str, str | None] = {}
    return len({s.patient for s in scans if s.patient and first.setdefault(s.patient, s.split) != s.split})


def say_known(counts: Mapping[str, Any]) -> str:
    """`patient known of 16 of 20 images`; empty for sets that were packed before this was counted."""
    known, images = counts.get("patient_known"), counts["samples"]
    if known is None:
        return ""
    return f"patient known of {'all' if known == images else f'{known:,} of'} {images:,} images"


def say_split(counts: Mapping[str, int]) -> str:
    """`split by patient (20 images)`, `split as the source says (...)`; empty where there are no parts."""
    ours = split_units.in_words(counts)
    given = counts.get("source", 0)
    said = [f"as the source says ({given:,} images)"] * bool(given) + [ours] * bool(ours)
    return f"split {', '.join(said)}" if said else ""


def card_lines(sources: Mapping[str, Any]) -> Iterator[str]:
    """For each source how its parts were made; then whether a patient can be in two of them."""
    for name, found in sources.items():
        how = say_split(found.get("split_by", {}))
        said = [text for text in (say_known(found), how or "no parts") if text]
        yield f"- {name}: {'; '.join(said)}"
    yield ""
    yield _verdict(sources)


def _verdict(sources: Mapping[str, Any]) -> str:
    counted = [found for found in sources.values() if "patient_known" in found]
    if len(counted) < len(sources):
        return "Whether a patient is in two parts is not recorded for what older versions packed."
    images = sum(found["samples"] for found in counted)
    known = sum(found["patient_known"] for found in counted)
    if not any(found.get("split_by") for found in counted):
        return f"There are no parts. The patient of {known:,} of {images:,} images is known."
    straddling = sum(found.get("straddling", 0) for found in counted)
    if straddling:
        return f"{straddling:,} patients are in two parts: scores on these parts are too good."
    if known == images:
        several = " (of different sources patients are taken for different ones)" if len(counted) > 1 else ""
        return f"No patient is in two parts: every image's patient is known and was checked{several}."
    first = f"The patient of {images - known:,} of {images:,} images is not known"
    if not known:
        first = "No patient is known"
    kinds: Counter[str] = Counter()
    for found in counted:
        kinds.update(found.get("split_by", {}))
    if kinds["image"]:
        then = "images of one patient can be in two parts, and scores on such parts too good"
    elif kinds["source"]:
        then = "whether the source's own parts keep patients apart could not be checked"
    else:
        then = "volumes are in one part each, and two volumes of one patient can be in two"
    return f"{first}: {then}."
