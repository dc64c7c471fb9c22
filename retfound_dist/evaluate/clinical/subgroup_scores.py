"""Scores of subgroups of the test images, and their gaps to the largest group of the same column.

Every group is scored on the same resamples of patients, so a gap has a paired interval and a p value. A
patient may have images in several groups. The p values of all gaps of all columns and scores are corrected
together by Holm's method.

Shapes: N images, G images of a group, S seeds, R resamples, M classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.evaluate.clinical.scored_images import ScoredImages
from retfound_dist.evaluate.data.labelled_set import SplitPart
from retfound_dist.evaluate.data.subgroup_columns import (
    REST_GROUPS,
    Grouping,
    group_images,
    parse_subgroups,
)
from retfound_dist.evaluate.scores import bootstrap, metrics
from retfound_dist.evaluate.scores.bootstrap import Interval, ProgressCallback, shifted_progress
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.evaluate.scores.multiple_comparisons import (
    ALPHA,
    adjust_by_holm,
    smallest_bootstrap_p,
    two_sided_p,
)
from retfound_dist.runtime.humanize import plural

SCORES = ("auroc", "aupr", "balanced_accuracy")
"""Scores of a group: means over all classes, as `macro` in metrics.json."""
MIN_IMAGES = 10
"""A group with fewer images is counted and not scored."""
MIN_UNITS = 5
"""A group with fewer patients has no intervals: resamples of so few differ too little."""


def subgroup_entries(
    images: ScoredImages,
    patients: Sequence[str | None],
    groupings: Sequence[Grouping],
    on_progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """`subgroups` in metrics.json: for each column its groups, their scores and gaps; undefined ones None."""
    columns: list[dict[str, Any]] = []
    total = sum(len(grouping.names) for grouping in groupings) * images.resamples
    for grouping in groupings:
        done = sum(len(column["groups"]) for column in columns) * images.resamples
        columns.append(_column(images, patients, grouping, shifted_progress(done, total, on_progress)))
    gaps = [gap for column in columns for group in column["groups"].values() for gap in _gaps_of(group)]
    for gap, p in zip(gaps, adjust_by_holm([gap["p"] for gap in gaps]), strict=True):
        gap["p_holm"] = p
        gap["clear"] = p is not None and p < ALPHA
    comparisons = sum(gap["p"] is not None for gap in gaps)
    return {
        "columns": {column.pop("column"): column for column in columns},
        "comparisons": comparisons,
        "notes": [*(note for grouping in groupings for note in grouping.notes), *_power(images, comparisons)],
        "fingerprint": fingerprint(groupings),
    }


def fingerprint(groupings: Sequence[Grouping]) -> str:
    """sha256 over the groups of all images: another list may say something else of the same images."""
    digest = hashlib.sha256()
    for grouping in groupings:
        digest.update(repr((grouping.column, grouping.names)).encode() + grouping.group_N.tobytes())
    return digest.hexdigest()


def group_part(part: SplitPart, entries: Sequence[str]) -> list[Grouping]:
    """The groups of the images of a part (of units: of the units) by the columns of `data.subgroups`."""
    return [group_images(column, part.descriptions) for column in parse_subgroups(entries)]


def has_groups_of(scores: Mapping[str, Any], part: SplitPart, entries: Sequence[str]) -> bool:
    """Whether the `subgroups` of a test in metrics.json are those that the list gives its images now.

    `scores`: metrics.json, or its `external`.
    """
    groupings = group_part(part, entries)
    stored_fingerprint = scores.get("subgroups", {}).get("fingerprint")
    return bool(stored_fingerprint == (fingerprint(groupings) if groupings else None))


def _power(images: ScoredImages, comparisons: int) -> list[str]:
    """A note where so few resamples cannot show any gap."""
    smallest = comparisons * smallest_bootstrap_p(images.resamples)
    if not comparisons or smallest < ALPHA:
        return []
    return [
        f"with {images.resamples:,} resamples and {comparisons} comparisons no gap can be called larger than "
        f"chance (the smallest corrected p is {min(1.0, smallest):.2g}): raise the setting bootstrap"
    ]


def _column(
    images: ScoredImages,
    patients: Sequence[str | None],
    grouping: Grouping,
    on_progress: ProgressCallback | None,
) -> dict[str, Any]:
    """One column: `column`, `reference` and `groups`, each group with counts, scores and gaps."""
    members = {name: np.flatnonzero(grouping.group_N == i) for i, name in enumerate(grouping.names)}
    real_groups = [name for name in members if name not in REST_GROUPS]
    # The first of equally large groups. There is none where test has no image with a known value.
    reference = max(real_groups, key=lambda name: len(members[name])) if real_groups else None
    groups, resampled = {}, {}
    raw_NM = images.raw_NM
    for place, (name, members_G) in enumerate(members.items()):
        groups[name] = _counts(images, patients, members_G)
        reason = groups[name]["reason"]
        report = shifted_progress(place * images.resamples, 0, on_progress)
        resampled[name] = _resampled(images, members_G, report) if reason is None else None
        groups[name] |= _scores(images, raw_NM, members_G, resampled[name])
    for name, group in groups.items():
        group["gap"] = None
        if reference is not None and name != reference:
            group["gap"] = _gap(group, groups[reference], resampled, name, reference)
    return {"column": grouping.column, "reference": reference, "groups": groups}


def _counts(
    images: ScoredImages, patients: Sequence[str | None], members_G: NDArray[np.int64]
) -> dict[str, Any]:
    """The sizes of a group, and the reason why it is too small to be scored, or None.

    `members_G`: indices of its images. The number of patients is None where one of them is not known.
    """
    owners = {patients[i] for i in members_G}
    labels_G = images.labels_N[members_G]
    too_few = (
        f"it has only {plural(len(members_G), images.unit)}, fewer than {MIN_IMAGES}"
        if len(members_G)
        else f"it has no {images.unit}"
    )
    return {
        "images": len(members_G),
        "patients": None if None in owners else len(owners),
        "units": len(np.unique(images.units_N[members_G])),
        "per_class": {name: int((labels_G == c).sum()) for c, name in enumerate(images.classes)},
        "reason": None if len(members_G) >= MIN_IMAGES else too_few,
    }


def _scores(
    images: ScoredImages,
    raw_NM: Floats,
    members_G: NDArray[np.int64],
    resampled: dict[str, Floats] | None,
) -> dict[str, Any]:
    """`scores`, `ci95` and `undefined` of a group; all None where it is too small."""
    if resampled is None:
        return {"scores": dict.fromkeys(SCORES), "ci95": dict.fromkeys(SCORES), "undefined": {}}
    macro = metrics.evaluate(images.labels_N[members_G], raw_NM[members_G], images.classes)["macro"]
    return {
        "scores": {name: macro[name] for name in SCORES},
        "ci95": {name: _interval(macro[name], values_R) for name, values_R in resampled.items()},
        "undefined": {name: reason for name, reason in macro["undefined"].items() if name in SCORES},
    }


def _resampled(
    images: ScoredImages, members_G: NDArray[np.int64], on_progress: ProgressCallback | None
) -> dict[str, Floats]:
    """The scores of a group in each resample (R,); NaN where one is undefined."""
    if len(np.unique(images.units_N[members_G])) < MIN_UNITS:
        return {name: np.full(images.resamples, np.nan) for name in SCORES}
    # A resample may have no image of a small group.
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled = bootstrap.scores_over_seeds(
            images.labels_N[members_G],
            images.probabilities_SNC[:, members_G],
            images.weights_RN,
            images.combine,
            on_progress,
            members_G,
        )
    return {name: resampled["macro"][name] for name in SCORES}


def _gap(
    group: dict[str, Any],
    reference: dict[str, Any],
    resampled: dict[str, dict[str, Floats] | None],
    name: str,
    reference_name: str,
) -> dict[str, Any]:
    """The differences of a group's scores from those of the reference, for each score."""
    one, other = resampled[name], resampled[reference_name]
    gap = {}
    for score in SCORES:
        value, base = group["scores"][score], reference["scores"][score]
        defined = value is not None and base is not None and one is not None and other is not None
        difference_R = one[score] - other[score] if defined and one and other else np.array([np.nan])
        gap[score] = {
            "value": value - base if defined else None,
            "ci95": bootstrap.interval(difference_R),
            "p": two_sided_p(difference_R),
            "reason": None if defined else _no_gap(group, reference, score, name, reference_name),
        }
    return gap


def _no_gap(
    group: dict[str, Any], reference: dict[str, Any], score: str, name: str, reference_name: str
) -> str:
    """Which of the two groups has no score, and why."""
    which, side = (name, group) if group["scores"][score] is None else (reference_name, reference)
    return f"{which}: {side['reason'] or side['undefined'].get(score, 'not defined')}"


def _gaps_of(group: dict[str, Any]) -> list[dict[str, Any]]:
    return list((group["gap"] or {}).values())


def _interval(value: float | None, values_R: Floats) -> Interval:
    return None if value is None else bootstrap.interval(values_R)
