from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retfound_dist.errors import DataError
from shards.plan import PARTS, assign_parts, fingerprint, shuffle
from shards.record import Scan

SIX_TWO_TWO = (0.6, 0.2, 0.2)


def no_read() -> bytes:
    raise AssertionError("planning reads no image")


def scan(key: str, label: str | None = "A", patient: str | None = None, split: str | None = None) -> Scan:
    return Scan(key=key, origin=key, source="s", read=no_read, label=label, patient=patient, split=split)


def corpus(sizes: dict[str, list[int]]) -> list[Scan]:
    """For each label, patients with so many images each."""
    return [
        scan(f"{label}{p}-{i}", label, f"{label}{p}")
        for label, patients in sizes.items()
        for p, images in enumerate(patients)
        for i in range(images)
    ]


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


def test_a_split_that_parts_a_patient_is_an_error_that_names_the_patient() -> None:
    scans = [scan("a", patient="p7", split="test"), scan("b", patient="p7", split="train")]
    with pytest.raises(DataError, match="patient p7 of source s is in test and in train"):
        assign_parts(scans, (0.0, 0.0, 0.0), 0)


def test_parts_do_not_mix_and_neighbours_of_a_volume_spread_out() -> None:
    scans = assign_parts(corpus({"A": [10] * 50}), SIX_TWO_TWO, 0)
    ordered = shuffle(scans, 0)
    assert [s.split for s in ordered] == ["train"] * 300 + ["val"] * 100 + ["test"] * 100
    touching = sum(a.patient == b.patient for a, b in pairwise(ordered))
    assert touching < 30  # 450 when unshuffled, about 10 by chance
    assert shuffle(scans[::-1], 0) == ordered
    assert shuffle(scans, 1) != ordered


def test_the_fingerprint_follows_every_name_size_and_field() -> None:
    base = scan("a", "A", "p", "train")
    same = fingerprint([base], {"quality": 95})
    assert fingerprint([replace(base)], {"quality": 95}) == same
    for other in (
        replace(base, size=5),
        replace(base, label="B"),
        replace(base, split=None),
        replace(base, key="b"),
    ):
        assert fingerprint([other], {"quality": 95}) != same
    assert fingerprint([base], {"quality": 94}) != same
