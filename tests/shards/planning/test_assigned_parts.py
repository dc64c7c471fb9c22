"""The parts that `planning/pack_plan.py` gives to patients and images: train, val, test."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retfound_dist.errors import DataError
from shards.images.scan import Scan
from shards.planning.pack_plan import (
    PARTS,
    _fill_empty,
    assign_parts,
)
from tests.shards.planning.planned_scans import SIX_TWO_TWO, corpus, digest, scan

SIZES = st.dictionaries(
    st.sampled_from("ABCD"), st.lists(st.integers(1, 20), min_size=1, max_size=30), min_size=1
)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(0, 99))
def test_a_patient_never_straddles_parts_and_none_is_left_out(sizes: dict[str, list[int]], seed: int) -> None:
    parts: dict[str | None, set[str | None]] = defaultdict(set)
    for done in assign_parts(corpus(sizes), SIX_TWO_TWO, seed):
        parts[done.patient].add(done.split)
    assert all(len(found) == 1 and None not in found for found in parts.values())


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(0, 99))
def test_every_label_with_three_patients_is_in_every_part(sizes: dict[str, list[int]], seed: int) -> None:
    held = {(s.label, s.split) for s in assign_parts(corpus(sizes), SIX_TWO_TWO, seed)}
    for label, patients in sizes.items():
        if len(patients) >= 3:
            assert {(label, part) for part in PARTS} <= held


def test_shares_come_near_the_fractions_in_every_label() -> None:
    rng = random.Random(1)
    sizes = {label: [rng.randint(1, 8) for _ in range(60)] for label in "ABC"}
    count = Counter((s.label, s.split) for s in assign_parts(corpus(sizes), SIX_TWO_TWO, 0))
    for label in "ABC":
        total = sum(sizes[label])
        for part, share in zip(PARTS, SIX_TWO_TWO, strict=True):
            assert abs(count[label, part] - share * total) <= 1


def test_without_patients_images_are_split() -> None:
    done = assign_parts([scan(f"k{i}") for i in range(10)], SIX_TWO_TWO, 0)
    assert Counter(s.split for s in done) == {"train": 6, "val": 2, "test": 2}


def test_the_split_follows_from_the_seed_and_not_from_the_order() -> None:
    scans = corpus({"A": [3, 1, 2, 2, 5], "B": [1] * 9})
    first = {s.key: s.split for s in assign_parts(scans, SIX_TWO_TWO, 0)}
    assert {s.key: s.split for s in assign_parts(scans[::-1], SIX_TWO_TWO, 0)} == first
    assert {s.key: s.split for s in assign_parts(scans, SIX_TWO_TWO, 1)} != first


def test_the_sources_own_split_is_kept_and_its_patients_follow_it() -> None:
    scans = [scan("a", patient="p", split="test"), scan("b", patient="p"), scan("c", patient="q")]
    assert [s.split for s in assign_parts(scans, (1.0, 0.0, 0.0), 0)] == ["test", "test", "train"]
    assert [s.split for s in assign_parts(scans, (0.0, 0.0, 0.0), 0)] == ["test", "test", None]
    assert [s.split for s in assign_parts(scans[::-1], (0.0, 0.0, 0.0), 0)] == [None, "test", "test"]


def test_a_split_that_parts_a_patient_is_an_error_that_names_the_patient() -> None:
    scans = [scan("a", patient="p7", split="test"), scan("b", patient="p7", split="train")]
    with pytest.raises(DataError, match="patient p7 of source s is in test and in train"):
        assign_parts(scans, (0.0, 0.0, 0.0), 0)


def plainly_split(scans: list[Scan], fractions: tuple[float, float, float], seed: int) -> dict[str, str]:
    """The rule in the plainest words: for each label, patients with many images first, equal ones by their
    hash, each to the part that lacks most images; an empty part gets the last patient of the fullest."""
    patients: dict[tuple[str, str], list[Scan]] = defaultdict(list)
    for one in scans:
        patients[one.source, one.patient or ""].append(one)
    labels = {
        who: min(((-n, label) for label, n in Counter(s.label or "" for s in images).items()))[1]
        for who, images in patients.items()
    }
    found = {}
    for label in sorted(set(labels.values())):
        mine = sorted(
            (who for who in patients if labels[who] == label),
            key=lambda who: (-len(patients[who]), digest(seed, *who)),
        )
        lacking = [share * sum(len(patients[who]) for who in mine) for share in fractions]
        dealt = []
        for who in mine:
            part = max(
                (place for place in range(3) if fractions[place] > 0), key=lambda place: lacking[place]
            )
            lacking[part] -= len(patients[who])
            dealt.append(part)
        for part in (place for place in range(3) if fractions[place] > 0 and place not in dealt):
            fullest = max(
                (place for place in range(3) if fractions[place] > 0), key=lambda place: dealt.count(place)
            )
            if dealt.count(fullest) > 1:
                dealt[max(place for place, one in enumerate(dealt) if one == fullest)] = part
        found |= {
            one.key: PARTS[part] for who, part in zip(mine, dealt, strict=True) for one in patients[who]
        }
    return found


FRACTIONS = st.sampled_from([SIX_TWO_TWO, (0.8, 0.1, 0.1), (0.5, 0.5, 0.0), (0.7, 0.0, 0.3), (1.0, 0.0, 0.0)])


MANY = st.dictionaries(
    st.sampled_from("ABCD"), st.lists(st.integers(1, 6), min_size=3, max_size=12), min_size=1
)


@settings(max_examples=60, deadline=None)
@given(MANY, st.integers(0, 99), FRACTIONS)
def test_the_split_is_the_plain_rule(
    sizes: dict[str, list[int]], seed: int, fractions: tuple[float, float, float]
) -> None:
    scans = corpus(sizes)
    assert {s.key: s.split for s in assign_parts(scans, fractions, seed)} == plainly_split(
        scans, fractions, seed
    )


def test_a_patient_counts_as_the_label_that_most_of_its_images_have_and_of_equals_as_the_first() -> None:
    """Twelve patients of two A and one B each, twelve of one A and one B, and as many of two B and one A."""
    scans = [
        scan(f"{kind}{p}-{i}", label, f"{kind}{p}")
        for kind, labels in (("most", "ABA"), ("tie", "BA"), ("few", "BAB"))
        for p in range(12)
        for i, label in enumerate(labels)
    ]
    done = {s.key: s.split for s in assign_parts(scans, SIX_TWO_TWO, 5)}
    assert done == plainly_split(scans, SIX_TWO_TWO, 5)


def test_patients_of_one_name_in_two_sources_are_two_patients() -> None:
    scans = [
        replace(scan(f"{source}{p}-{i}", "A", f"p{p}"), source=source)
        for source in "st"
        for p in range(6)
        for i in range(2)
    ]
    done = assign_parts(scans, (0.5, 0.25, 0.25), 1)
    assert {s.key: s.split for s in done} == plainly_split(scans, (0.5, 0.25, 0.25), 1)
    part = {(s.source, s.patient): s.split for s in done}
    assert any(part["s", f"p{p}"] != part["t", f"p{p}"] for p in range(6))


def test_two_patients_fill_two_of_three_parts_and_one_patient_one() -> None:
    two = {s.patient: s.split for s in assign_parts(corpus({"A": [3, 3, 1, 1]}), (0.5, 0.5, 0.0), 0)}
    assert Counter(two.values()) == {"train": 2, "val": 2}
    assert {s.split for s in assign_parts(corpus({"A": [4]}), (0.6, 0.4, 0.0), 0)} == {"train"}


def test_an_empty_part_takes_the_smallest_patient_of_the_part_that_has_most() -> None:
    """100, 3, 2 and 1 images at 98:1:1: all but the first go where the rule fills up."""
    done = {s.patient: s.split for s in assign_parts(corpus({"A": [1, 100, 2, 3]}), (0.98, 0.01, 0.01), 0)}
    scans = corpus({"A": [1, 100, 2, 3]})
    assert done == {s.patient: plainly_split(scans, (0.98, 0.01, 0.01), 0)[s.key] for s in scans}
    assert set(done.values()) == set(PARTS)


def test_a_scan_whose_part_is_given_is_not_dealt_again_and_the_rest_is() -> None:
    scans = [scan("a", patient="p", split="val"), *corpus({"A": [1] * 6})]
    done = {s.key: s.split for s in assign_parts(scans, (0.5, 0.0, 0.5), 0)}
    assert done["a"] == "val"
    assert Counter(done.values()) == {"val": 1, "train": 3, "test": 3}


def test_images_without_a_patient_may_have_parts_of_their_own_and_no_label_is_a_label() -> None:
    scans = [scan("a", None, None, "train"), scan("b", None, None, "test"), scan("c", None)]
    assert [s.split for s in assign_parts(scans, (0.0, 0.0, 0.0), 0)] == ["train", "test", None]
    mixed = [scan(f"n{i}", None) for i in range(5)] + [scan(f"a{i}", "A") for i in range(5)]
    done = assign_parts(mixed, SIX_TWO_TWO, 0)
    assert Counter((s.label, s.split) for s in done) == {
        (label, part): n for label in (None, "A") for part, n in (("train", 3), ("val", 1), ("test", 1))
    }


def test_slices_of_fewer_volumes_than_parts_are_refused() -> None:
    scans = [replace(scan(f"a{i}"), volume="a", slice=i) for i in range(9)]
    with pytest.raises(DataError, match="are of 1 volume "):
        assign_parts(scans, SIX_TWO_TWO, 0)
    assert {s.split for s in assign_parts(scans, SIX_TWO_TWO, 0, "image")} == set(PARTS)


@pytest.mark.parametrize("seed", range(6))
def test_three_labels_of_one_patient_each_fill_three_parts_equal_ones_in_the_order_of_their_hash(
    seed: int,
) -> None:
    scans = corpus({"A": [2], "B": [2], "C": [2]})
    parts = {s.patient: s.split for s in assign_parts(scans, (0.4, 0.3, 0.3), seed)}
    assert parts == dict(zip(sorted(parts, key=lambda p: digest(seed, "s", str(p))), PARTS, strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_images_alone_are_dealt_by_label_in_the_order_of_the_hash_of_their_key(seed: int) -> None:
    scans = [scan(f"{label}{i}", label) for label in "AB" for i in range(10)]
    parts = {s.key: s.split for s in assign_parts(scans, (0.5, 0.3, 0.2), seed)}
    for label in "AB":
        lacking = [5.0, 3.0, 2.0]
        for key in sorted((k for k in parts if k[0] == label), key=lambda key: digest(seed, key)):
            part = max(range(3), key=lacking.__getitem__)
            lacking[part] -= 1
            assert parts[key] == PARTS[part]


@pytest.mark.parametrize(
    ("part", "filled"),
    [
        ([1, 1, 0], [1, 2, 0]),
        ([1, 0, 1, 1], [1, 0, 1, 2]),
        ([0, 1, 1, 1, 0], [0, 1, 1, 2, 0]),
        ([0, 0, 0, 1, 1], [0, 0, 2, 1, 1]),
        ([0, 1, 2], [0, 1, 2]),
    ],
)
def test_an_empty_part_gets_the_last_patient_of_whichever_part_is_fullest(
    part: list[int], filled: list[int]
) -> None:
    assert _fill_empty(part, (0, 1, 2)) == filled
