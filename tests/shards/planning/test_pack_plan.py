from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retfound_dist.config.loading import build
from retfound_dist.config.schema import PackConfig
from retfound_dist.errors import DataError
from shards.images.scan import Scan
from shards.planning.pack_plan import (
    PARTS,
    PackPlan,
    PlanDigests,
    _fill_empty,
    assign_parts,
    fingerprint,
    make_plan,
    pack_order,
    recipe,
)

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
    assert [s.split for s in assign_parts(scans[::-1], (0.0, 0.0, 0.0), 0)] == [None, "test", "test"]


def test_a_split_that_parts_a_patient_is_an_error_that_names_the_patient() -> None:
    scans = [scan("a", patient="p7", split="test"), scan("b", patient="p7", split="train")]
    with pytest.raises(DataError, match="patient p7 of source s is in test and in train"):
        assign_parts(scans, (0.0, 0.0, 0.0), 0)


def test_parts_do_not_mix_and_neighbours_of_a_volume_spread_out() -> None:
    scans = assign_parts(corpus({"A": [10] * 50}), SIX_TWO_TWO, 0)
    ordered = pack_order(scans, 0)
    assert [s.split for s in ordered] == ["train"] * 300 + ["val"] * 100 + ["test"] * 100
    touching = sum(a.patient == b.patient for a, b in pairwise(ordered))
    assert touching < 30  # 450 when unshuffled, about 10 by chance
    assert pack_order(scans[::-1], 0) == ordered
    assert pack_order(scans, 1) != ordered


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


def digest(seed: int, *names: str) -> bytes:
    return hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()


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


def test_the_order_is_by_part_and_then_by_the_hash_of_seed_and_key() -> None:
    scans = [scan(f"k{i}", split=(*PARTS, None)[i % 4]) for i in range(40)]
    order = {"train": 0, "val": 1, "test": 2, None: 3}
    for seed in (0, 7):
        assert pack_order(scans, seed) == sorted(scans, key=lambda s: (order[s.split], digest(seed, s.key)))


def test_a_name_that_is_no_valid_text_is_hashed_as_the_disk_has_it() -> None:
    scans = [scan("a\udcff"), scan("b")]
    found = pack_order(scans, 0)
    assert found == sorted(
        scans, key=lambda s: hashlib.sha256(f"0\0{s.key}".encode(errors="surrogateescape")).digest()
    )


def plan_of(count: int, settings: dict[str, object] | None = None) -> PackPlan:
    return PackPlan(
        tuple(scan(f"k{i}", "A", f"p{i}", "train") for i in range(count)), "", settings or {"quality": 95}
    )


def test_a_shards_mark_follows_from_the_settings_and_the_scans_up_to_the_next_shards_first() -> None:
    plan, marks = plan_of(6), PlanDigests(plan_of(6))
    found = [marks.at(place) for place in range(7)]
    assert len(set(found)) == 7
    for place in range(7):  # asked alone, asked again, asked backwards
        assert PlanDigests(plan).at(place) == found[place]
    assert [marks.at(place) for place in reversed(range(7))] == found[::-1]
    assert marks.at(99) == found[6]
    assert [marks.at(3), marks.at(3), marks.at(5), marks.at(0)] == [found[3], found[3], found[5], found[0]]


@pytest.mark.parametrize("changed", range(6))
def test_a_mark_changes_with_any_scan_before_it_or_at_it_and_with_none_behind(changed: int) -> None:
    plan = plan_of(6)
    scans = list(plan.scans)
    scans[changed] = replace(scans[changed], size=9)
    other = PlanDigests(replace(plan, scans=tuple(scans)))
    same = [PlanDigests(plan).at(place) == other.at(place) for place in range(7)]
    assert same == [place < changed for place in range(7)]


def test_marks_change_with_the_settings_and_where_the_plan_goes_on() -> None:
    longer, shorter = PlanDigests(plan_of(7)), PlanDigests(plan_of(6))
    assert [longer.at(p) == shorter.at(p) for p in range(7)] == [True] * 6 + [False]
    assert PlanDigests(plan_of(6, {"quality": 94})).at(0) != PlanDigests(plan_of(6)).at(0)


def test_settings_are_told_apart_by_their_values_and_not_by_their_order() -> None:
    scans = plan_of(2).scans
    assert fingerprint(scans, {"a": 1, "b": 2}) == fingerprint(scans, {"b": 2, "a": 1})
    assert fingerprint(scans, {"a": 1, "b": 2}) != fingerprint(scans, {"a": 2, "b": 1})
    assert fingerprint(scans, {}) != fingerprint(scans[::-1], {})
    assert fingerprint(scans, {}) != fingerprint(scans[:1], {})
    assert fingerprint([replace(s, origin=f"elsewhere/{s.key}") for s in scans], {}) != fingerprint(scans, {})


def config(**sections: dict[str, object]) -> PackConfig:
    base: dict[str, dict[str, object]] = {"source": {"kind": "folder", "path": "from"}, "out": {"url": "to"}}
    names = {**base, **sections}
    return build(PackConfig, {name: base.get(name, {}) | sections.get(name, {}) for name in names}, "test")


def test_a_plan_has_every_scan_in_its_part_and_order_and_takes_the_list_over() -> None:
    scans = corpus({"A": [2] * 9, "B": [1] * 8})
    given = list(scans)
    made = make_plan(scans, config(split={"fractions": [0.6, 0.2, 0.2], "seed": 3}, out={"seed": 4}))
    assert scans == []
    assert list(made.scans) == pack_order(assign_parts(given, SIX_TWO_TWO, 3), 4)
    assert made.recipe == recipe(config(split={"fractions": [0.6, 0.2, 0.2], "seed": 3}, out={"seed": 4}))
    assert made.fingerprint == fingerprint(made.scans, made.recipe)
    assert dict(made.kinds) == dict(made.notes) == {}


def test_the_recipe_has_what_changes_the_bytes_of_shards_and_nothing_else() -> None:
    base = recipe(config())
    assert base["source"] == {"kind": "folder"}
    assert set(base) == {"source", "image", "split", "out"}
    assert set(base["out"]) == {"name", "shard_mb", "seed"}
    for same in (config(out={"url": "elsewhere", "workers": 2}), config(source={"path": "elsewhere"})):
        assert recipe(same) == base
    changes = [
        config(out={"seed": 1}), config(out={"shard_mb": 1.0}), config(out={"name": "x"}), config(split={"seed": 1}),
        config(image={"quality": 90}), config(source={"kind": "octid"}),
    ]  # fmt: skip
    assert all(recipe(change) != base for change in changes)
    drawn = recipe(config(source={"kind": "phantom"}, phantom={"patients": 3}))
    assert drawn["phantom"]["patients"] == 3


def test_the_recipe_of_several_sources_names_each_by_kind_and_name() -> None:
    tree = {"sources": [{"kind": "folder", "path": "a", "name": "one"}, {"kind": "phantom", "name": "two"}],
            "out": {"url": "to"}}  # fmt: skip
    found = recipe(build(PackConfig, tree, "test"))
    assert found["sources"] == [{"kind": "folder", "name": "one"}, {"kind": "phantom", "name": "two"}]
    assert "phantom" in found
    assert "source" not in found


def test_a_plan_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        plan_of(1).fingerprint = "x"  # type: ignore[misc]


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


def test_a_plan_made_by_an_earlier_version_is_known_again() -> None:
    """What 0.1.0's first plans say of these scans: another format, or a new key in the recipe, packs all sets anew."""
    scans = [
        replace(scan(f"k{i}", "AB"[i % 2], f"p{i // 3}"), origin=f"A/k{i}.png", size=100 + i)
        for i in range(60)
    ]
    made = make_plan(
        scans, config(source={"path": "x"}, out={"url": "u"}, split={"fractions": [0.5, 0.25, 0.25]})
    )
    assert made.fingerprint == "d0e17f5331c76295fcc2dbe81ca4ed1c1b4de89dddab31a6a7d0e98c1079892d"
    assert [s.key for s in made.scans[:5]] == ["k14", "k57", "k39", "k48", "k10"]


def test_settings_that_part_volumes_or_leave_suspects_out_are_in_the_recipe_where_they_are_set() -> None:
    usual = recipe(config())
    assert "unknown_patient" not in usual["split"]
    assert "leave_out_suspects" not in usual["image"]
    changed = recipe(config(split={"unknown_patient": "image"}, image={"leave_out_suspects": ["mask"]}))
    assert changed["split"]["unknown_patient"] == "image"
    assert list(changed["image"]["leave_out_suspects"]) == ["mask"]
    assert usual["split"].keys() | {"unknown_patient"} == changed["split"].keys()
    assert usual["image"].keys() | {"leave_out_suspects"} == changed["image"].keys()


def volumes(rule: str, *, given: bool = False) -> PackPlan:
    """Four volumes of six slices whose patient is not known; a fifth comes with its part."""
    scans = [replace(scan(f"{v}{i}"), volume=v, slice=i) for v in "abcd" for i in range(6)]
    if given:
        scans += [replace(scan(f"e{i}", split="val"), volume="e", slice=i) for i in range(6)]
    return make_plan(scans, config(split={"fractions": [0.5, 0.25, 0.25], "unknown_patient": rule}))


def test_volumes_of_unknown_patients_stay_together_unless_the_plan_is_asked_to_part_them() -> None:
    whole, parted = volumes("volume"), volumes("image")
    assert (whole.rule, parted.rule) == ("volume", "image")
    for plan, together in ((whole, True), (parted, False)):
        parts = defaultdict(set)
        for one in plan.scans:
            parts[one.volume].add(one.split)
        assert all(len(found) == 1 for found in parts.values()) == together
        assert {plan.split_kind(one) for one in plan.scans} == {"volume" if together else "image"}


def test_a_plan_says_of_each_scan_whether_its_source_or_the_split_gave_it_its_part() -> None:
    plan = volumes("volume", given=True)
    assert {plan.split_kind(one) for one in plan.scans if one.volume == "e"} == {"source"}
    assert {plan.split_kind(one) for one in plan.scans if one.volume != "e"} == {"volume"}


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
