"""Labels that are not classes are told from labels that are."""

from __future__ import annotations

from collections import Counter

import pytest

from retfound_dist.listing.class_names import label_problems


@pytest.mark.parametrize(
    "labels",
    [
        Counter({"AMD": 12, "DME": 9, "NORMAL": 30}),
        Counter({str(grade): 10 for grade in range(5)}),
        Counter({"0": 3, "1": 2}),
        Counter({"-1": 9, "0": 30, "1": 20}),
        Counter({"AMD+": 9, "AMD": 9, "CNV/PED": 5, "wet and dry": 4, "DR (mild)": 6}),
        Counter({"Age-related macular degeneration, wet": 9, "Normal": 8}),
        Counter({"A": 1, "B": 1}),
        Counter({f"class {n}": 40 for n in range(60)}),
    ],
)
def test_classes_and_grades_are_taken(labels: Counter[str]) -> None:
    assert label_problems(labels) == []


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (
            [str(40 + n) for n in range(40)],
            "40 different numbers from 40 to 79: a measurement such as an age",
        ),
        ([str(n) for n in (31, 48, 52, 67, 80)] * 9, "5 different numbers from 31 to 80"),
        (["0.5", "1.5", "2.5"] * 9, "3 different numbers from 0.5 to 2.5"),
        (["1,5", "2,5"] * 9, "2 different numbers"),
        (["unknown age", *map(str, range(50))], "50 different numbers"),
        (["2021-03-04", "2021-03-05"] * 5, "dates are not classes"),
        (["04.03.2021", "05.03.2021"] * 5, "dates are not classes"),
        (["2019", "2020", "2021"] * 5, "years are not classes"),
        ([f"scan {n}" for n in range(20)], "20 images have 20 different labels"),
        ([f"P{n:03d}" for n in range(150)] * 9, "1,350 images have 150 different labels"),
        (["Normal", "normal", "AMD"] * 5, "'Normal' and 'normal' differ only by capitals or spaces"),
        (["No DR", "NoDR"] * 5, "'No DR' and 'NoDR' differ only"),
        (["nan", "AMD", "DME"] * 5, "'nan' means that there is no label"),
    ],
)
def test_what_is_no_class_is_named_with_what_to_do(labels: list[str], said: str) -> None:
    (doubt,) = label_problems(labels)
    assert said in doubt


@pytest.mark.parametrize(
    "joined",
    [
        *("AMD|DME", "AMD; DME", "AMD;", "['AMD', 'DME']", "AMD, DME", "AMD,other", "AMD+DME", "AMD & DME"),
        *("AMD and DME", "AMD/DME", "amd dme"),
    ],
)
def test_several_classes_in_one_label_are_refused(joined: str) -> None:
    found = label_problems(["AMD", "DME"] * 9 + [joined] * 3)
    assert (
        (found == [])
        if joined == "AMD;"
        else f"{joined!r} is several classes in one label (3 images)" in found[0]
    )
