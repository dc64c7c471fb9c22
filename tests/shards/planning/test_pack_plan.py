from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise

import pytest

from retfound_dist.config.loading import build
from retfound_dist.config.schema import PackConfig
from shards.planning.pack_plan import (
    PARTS,
    PackPlan,
    PlanDigests,
    assign_parts,
    fingerprint,
    make_plan,
    pack_order,
    recipe,
)
from tests.shards.planning.planned_scans import SIX_TWO_TWO, corpus, digest, scan


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
