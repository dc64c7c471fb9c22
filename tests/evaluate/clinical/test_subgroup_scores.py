"""Groups are scored as a set of their own, gaps are paired, and their p values corrected together."""

from __future__ import annotations

import json

import numpy as np
import pytest

from retfound_dist.evaluate.clinical.clinical_tables import subgroup_tables
from retfound_dist.evaluate.clinical.subgroup_scores import SCORES, fingerprint, subgroup_entries
from retfound_dist.evaluate.data.subgroup_columns import Grouping
from retfound_dist.evaluate.scores import bootstrap, metrics
from retfound_dist.evaluate.scores.metrics import Floats, Labels
from retfound_dist.evaluate.scores.multiple_comparisons import adjust_by_holm
from tests.evaluate.clinical.drawn import drawn_predictions, scored


def patients(images: int, each: int = 2) -> list[str | None]:
    return [f"p{i // each}" for i in range(images)]


def worse_for_the_old() -> tuple[Labels, Floats]:
    """300 images; the second half gets probabilities without a relation to the class."""
    labels_N, p_SNC = drawn_predictions(300, 3)
    p_SNC[:, 150:] = drawn_predictions(150, 3, seed=5)[1]
    return labels_N, p_SNC


AGE = Grouping("age", ("young", "old"), np.repeat([0, 1], 150))
SEX = Grouping("sex", ("F", "M", "unknown"), np.array([0, 0, 1, 1, 1, 1] * 49 + [2] * 6))


def test_a_group_has_the_scores_and_intervals_of_its_own_images() -> None:
    labels_N, p_SNC = worse_for_the_old()
    images = scored(labels_N, p_SNC)
    group = subgroup_entries(images, patients(300), [AGE])["columns"]["age"]["groups"]["old"]
    own = slice(150, 300)
    macro = metrics.evaluate(labels_N[own], p_SNC[0, own], images.classes)["macro"]
    drawn = bootstrap.scores(labels_N[own], p_SNC[0, own], images.weights_RN[:, own])["macro"]
    for name in SCORES:
        assert group["scores"][name] == macro[name]
        assert group["ci95"][name] == pytest.approx(bootstrap.interval(drawn[name]))
    assert (group["images"], group["patients"], group["reason"]) == (150, 75, None)
    assert group["per_class"] == {c: int((labels_N[own] == i).sum()) for i, c in enumerate("ABC")}


def test_a_gap_is_clear_where_it_is_there_and_not_where_it_is_not() -> None:
    labels_N, p_SNC = worse_for_the_old()
    entries = subgroup_entries(scored(labels_N, p_SNC, resamples=600), patients(300), [AGE, SEX])
    age, sex = entries["columns"]["age"], entries["columns"]["sex"]
    assert (age["reference"], sex["reference"]) == ("young", "M")
    assert age["groups"]["young"]["gap"] is None
    assert all(gap["clear"] and gap["ci95"][1] < 0 for gap in age["groups"]["old"]["gap"].values())
    assert not any(gap["clear"] for gap in sex["groups"]["F"]["gap"].values())
    for name in SCORES:
        scores = {group: age["groups"][group]["scores"][name] for group in ("young", "old")}
        assert age["groups"]["old"]["gap"][name]["value"] == pytest.approx(scores["old"] - scores["young"])


def test_all_gaps_of_all_columns_are_corrected_together() -> None:
    labels_N, p_SNC = worse_for_the_old()
    entries = subgroup_entries(scored(labels_N, p_SNC, resamples=600), patients(300), [AGE, SEX])
    gaps = [
        gap
        for column in entries["columns"].values()
        for group in column["groups"].values()
        for gap in (group["gap"] or {}).values()
    ]
    assert entries["comparisons"] == 6
    assert [gap["p_holm"] for gap in gaps] == adjust_by_holm([gap["p"] for gap in gaps])
    known = [gap for gap in gaps if gap["p"] is not None]
    assert min(gap["p_holm"] for gap in known) == 6 * min(gap["p"] for gap in known)


def test_a_group_that_is_too_small_is_counted_and_has_no_scores() -> None:
    labels_N, p_SNC = worse_for_the_old()
    group = subgroup_entries(scored(labels_N, p_SNC), patients(300), [SEX])["columns"]["sex"]["groups"]
    assert group["unknown"]["images"] == 6
    assert group["unknown"]["reason"] == "it has only 6 images, fewer than 10"
    assert group["unknown"]["scores"] == dict.fromkeys(SCORES)
    assert group["unknown"]["gap"]["auroc"] == {
        **{"value": None, "ci95": None, "p": None, "p_holm": None, "clear": False},
        "reason": "unknown: it has only 6 images, fewer than 10",
    }


def test_a_group_without_a_class_has_no_auroc_and_says_which_class() -> None:
    labels_N, p_SNC = drawn_predictions(120, 3)
    by_class = Grouping("ward", ("x", "y"), (labels_N == 2).astype(np.int64))
    entries = subgroup_entries(scored(labels_N, p_SNC), patients(120), [by_class])
    groups = entries["columns"]["ward"]["groups"]
    assert groups["x"]["scores"]["auroc"] is None
    assert groups["x"]["undefined"]["auroc"] == "class C does not occur"
    assert groups["y"]["gap"]["auroc"]["reason"] == "y: classes A, B do not occur"
    json.dumps(entries, allow_nan=False)


def test_a_range_without_images_and_a_group_of_one_patient_are_no_error() -> None:
    labels_N, p_SNC = drawn_predictions(60, 2)
    grouping = Grouping("age", ("0-50", "50+", "90+"), np.array([0] * 20 + [1] * 40))
    owners = ["one"] * 20 + [f"p{i}" for i in range(40)]
    images = scored(labels_N, p_SNC)
    images = type(images)(**{**vars(images), "units_N": np.array([0] * 20 + list(range(1, 41)))})
    groups = subgroup_entries(images, owners, [grouping])["columns"]["age"]["groups"]
    assert groups["90+"]["reason"] == "it has no image"
    assert groups["0-50"]["patients"] == 1
    assert groups["0-50"]["scores"]["auroc"] is not None
    assert groups["0-50"]["ci95"]["auroc"] is None
    assert groups["0-50"]["gap"]["auroc"]["p"] is None


def test_too_few_resamples_for_the_number_of_gaps_are_named() -> None:
    labels_N, p_SNC = worse_for_the_old()
    few, many = (
        subgroup_entries(scored(labels_N, p_SNC, resamples=r), patients(300), [AGE]) for r in (60, 200)
    )
    assert few["notes"] == [
        "with 60 resamples and 3 comparisons no gap can be called larger than chance (the smallest corrected "
        "p is 0.098): raise the setting bootstrap"
    ]
    assert many["notes"] == []


def test_seeds_are_resampled_too() -> None:
    labels_N, p_SNC = drawn_predictions(200, 3, seeds=3)
    half = Grouping("half", ("a", "b"), np.repeat([0, 1], 100))
    one = subgroup_entries(scored(labels_N, p_SNC[:1]), patients(200), [half])["columns"]["half"]["groups"]
    three = subgroup_entries(scored(labels_N, p_SNC), patients(200), [half])["columns"]["half"]["groups"]
    mean_NC = p_SNC.mean(0).round(8)
    expected = metrics.evaluate(labels_N[:100], mean_NC[:100], ("A", "B", "C"))["macro"]["auroc"]
    assert three["a"]["scores"]["auroc"] == expected != one["a"]["scores"]["auroc"]


def test_another_list_of_the_same_images_has_another_fingerprint() -> None:
    other = Grouping("age", AGE.names, 1 - AGE.group_N)
    assert fingerprint([AGE]) == fingerprint([Grouping(**vars(AGE))]) != fingerprint([other])


def test_images_without_a_known_value_are_never_the_reference() -> None:
    labels_N, p_SNC = drawn_predictions(60, 2)
    mostly = Grouping("sex", ("F", "unknown"), np.array([0] * 20 + [1] * 40))
    column = subgroup_entries(scored(labels_N, p_SNC), patients(60), [mostly])["columns"]["sex"]
    assert column["reference"] == "F"
    assert column["groups"]["unknown"]["gap"] is not None
    none = Grouping("sex", ("unknown",), np.zeros(60, np.int64))
    entries = subgroup_entries(scored(labels_N, p_SNC), patients(60), [none])
    assert entries["columns"]["sex"]["reference"] is None
    assert entries["columns"]["sex"]["groups"]["unknown"]["gap"] is None
    (table,) = subgroup_tables(entries)
    assert table["note"] == "None of the test images has a known value, so there are no gaps."
