from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retfound_dist.listing.patient_split import split_by_unit

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


def patients(classes: str = "ABC", each: int = 40) -> tuple[list[str], list[str]]:
    """Labels and patients of images; patient i of a class has 1 + i % 4 images."""
    labels, units = [], []
    for label in classes:
        for i in range(each):
            labels += [label] * (1 + i % 4)
            units += [f"{label}{i}"] * (1 + i % 4)
    return labels, units


def test_no_patient_is_in_two_parts() -> None:
    labels, units = patients()
    held = defaultdict(set)
    for unit, part in zip(units, split_by_unit(labels, units, SHARES, 0), strict=True):
        held[unit].add(part)
    assert all(len(parts) == 1 for parts in held.values())


def test_each_class_is_divided_by_the_shares() -> None:
    labels, units = patients()
    counts = Counter(zip(labels, split_by_unit(labels, units, SHARES, 0), strict=True))
    for label in "ABC":
        total = sum(counts[label, part] for part in SHARES)
        for part, share in SHARES.items():
            assert abs(counts[label, part] / total - share) < 0.05


def test_the_split_follows_from_the_seed_and_not_from_the_order() -> None:
    labels, units = patients()
    first = dict(zip(units, split_by_unit(labels, units, SHARES, 1), strict=True))
    turned = dict(zip(units[::-1], split_by_unit(labels[::-1], units[::-1], SHARES, 1), strict=True))
    other = dict(zip(units, split_by_unit(labels, units, SHARES, 2), strict=True))
    assert first == turned
    assert first != other


def test_three_patients_reach_all_three_parts_whatever_their_images() -> None:
    labels, units = ["A"] * 12, ["p"] * 10 + ["q", "r"]
    for seed in range(10):
        assert set(split_by_unit(labels, units, SHARES, seed)) == set(SHARES)


def test_two_patients_go_to_train_and_test() -> None:
    assert set(split_by_unit(["A", "A"], ["p", "q"], SHARES, 0)) == {"train", "test"}


def test_a_part_without_a_share_gets_nothing() -> None:
    labels, units = patients()
    assert "val" not in split_by_unit(labels, units, {"train": 0.8, "val": 0.0, "test": 0.2}, 0)


def test_a_patient_of_two_classes_stays_whole() -> None:
    parts = split_by_unit(["A", "B", "A", "B", "B"], ["p", "p", "q", "r", "s"], SHARES, 0)
    assert parts[0] == parts[1]


def plainly_split(labels: list[str], units: list[str], shares: dict[str, float], seed: int) -> list[str]:
    """The rule in the plainest words: a unit is of the label that most of its images have (of equals the first);
    of each label the units come in the order of a draw from (seed, number of the label), each to the part that
    wants most images; the last ones, as many as there are empty parts, to those."""
    names = sorted(set(units))
    held = {unit: [label for label, one in zip(labels, units, strict=True) if one == unit] for unit in names}
    of = {unit: min(set(mine), key=lambda label: (-mine.count(label), label)) for unit, mine in held.items()}
    part = {}
    for place, label in enumerate(sorted(set(of.values()))):
        mine = [unit for unit in names if of[unit] == label]
        order = [mine[i] for i in np.random.default_rng([seed, place]).permutation(len(mine))]
        parts = [name for name in ("train", "test", "val") if shares.get(name)]
        images = sum(len(held[unit]) for unit in order)
        wanted = {name: images * shares[name] / sum(shares.values()) for name in parts}
        empty = list(parts)
        for left, unit in zip(range(len(order), 0, -1), order, strict=True):
            among = empty if empty and left <= len(empty) else parts
            best = next(name for name in among if wanted[name] == max(wanted[other] for other in among))
            wanted[best] -= len(held[unit])
            empty = [name for name in empty if name != best]
            part[unit] = best
    return [part[unit] for unit in units]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 11)), min_size=1, max_size=60),
    st.integers(0, 99),
    st.sampled_from([SHARES, {"train": 8, "test": 2}, {"train": 0.5, "val": 0.5, "test": 0}, {"test": 1}]),
)
def test_the_split_is_the_plain_rule(
    images: list[tuple[str, int]], seed: int, shares: dict[str, float]
) -> None:
    labels, units = [label for label, _ in images], [f"p{unit}" for _, unit in images]
    assert split_by_unit(labels, units, shares, seed) == plainly_split(labels, units, shares, seed)


def test_labels_without_their_units_are_refused() -> None:
    with pytest.raises(ValueError):
        split_by_unit(["A", "B"], ["p"], SHARES, 0)
