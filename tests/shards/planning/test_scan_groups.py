"""What a split keeps together, and how a plan says that it did."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from retfound_dist.errors import DataError
from retfound_dist.listing.split_units import BY_IMAGE, KEEP_VOLUMES
from shards.images.scan import Scan
from shards.planning.pack_plan import PackPlan, assign_parts
from shards.planning.scan_groups import check_divisible, group_of, keys_with_part, kind_of, parts_of_groups

SIX_TWO_TWO = (0.6, 0.2, 0.2)


def no_read() -> bytes:
    raise AssertionError("planning reads no image")


def scan(key: str, split: str | None = None, source: str = "s", **known: str | None) -> Scan:
    return Scan(key=key, origin=f"{key}.png", source=source, read=no_read, split=split, **known)  # type: ignore[arg-type]


PATIENT = scan("a", patient="p", group="f", volume="v")
FOLDER = scan("b", group="f", volume="v")
VOLUME = scan("c", volume="v")
ALONE = scan("d")


def test_a_scan_is_kept_with_its_patient_else_its_folder_else_its_volume_else_with_none() -> None:
    found = [group_of(one) for one in (PATIENT, FOLDER, VOLUME, ALONE)]
    assert found == [("s", "p"), ("s", "folder", "f"), ("s", "volume", "v"), "d"]
    assert [kind_of(group) for group in found] == ["patient", "folder", "volume", "image"]
    assert [group_of(one, BY_IMAGE) for one in (PATIENT, FOLDER, VOLUME, ALONE)] == [
        ("s", "p"),
        "b",
        "c",
        "d",
    ]


def test_names_of_another_source_are_other_patients_and_volumes() -> None:
    for one in (PATIENT, VOLUME):
        assert group_of(replace(one, source="t")) != group_of(one)


def test_a_sources_own_part_holds_for_all_of_a_patient_and_of_a_volume_and_for_one_image_alone() -> None:
    scans = [
        scan("0", "val"),
        scan("1", volume="v"),
        scan("2", "test", volume="v"),
        scan("3", "train", patient="p"),
    ]
    assert parts_of_groups(scans, group_of) == {("s", "volume", "v"): "test", ("s", "p"): "train"}
    assert parts_of_groups([*scans, scan("4", "test", volume="v")], group_of) == parts_of_groups(
        scans, group_of
    )


@pytest.mark.parametrize(
    ("known", "named"),
    [({"patient": "p7"}, "patient p7"), ({"volume": "v7"}, "volume v7"), ({"group": "f7"}, "folder f7")],
)
def test_what_a_source_has_in_two_parts_is_named_with_both_and_the_second_image(
    known: dict[str, str], named: str
) -> None:
    with pytest.raises(DataError, match=rf"^{named} of source s is in val and in test \(b\.png\)"):
        parts_of_groups([scan("a", "val", **known), scan("b", "test", **known)], group_of)


def test_given_parts_are_told_by_source_as_all_or_by_key_and_not_at_all_where_there_is_none() -> None:
    scans = [
        scan("a", "val", "all"), scan("b", "test", "all"), scan("c", "val", "some"), scan("d", None, "some"),
        scan("e", None, "none"),
    ]  # fmt: skip
    assert keys_with_part(scans) == {"all": None, "some": frozenset({"c"})}


def test_a_plan_says_how_each_scan_came_into_its_part() -> None:
    plan = PackPlan((), "", {}, keys_with_part={"all": None, "some": frozenset({"c"})})
    told = [
        scan("a", source="all", patient="p"), scan("c", source="some", patient="p"), scan("d", source="some", patient="p"),
        scan("e", source="none", volume="v"), scan("f", source="none"), scan("g", source="none", group="f"),
    ]  # fmt: skip
    assert [plan.split_kind(one) for one in told] == [
        "source",
        "source",
        "patient",
        "volume",
        "image",
        "folder",
    ]
    assert [plan.unit_kind(one) for one in told] == ["patient"] * 3 + ["volume", "image", "folder"]
    assert replace(plan, rule=BY_IMAGE).unit_kind(VOLUME) == "image"


@pytest.mark.parametrize(
    ("groups", "scans", "fractions", "refused"),
    [
        (2, [VOLUME] * 3, SIX_TWO_TWO, True),
        (1, [FOLDER] * 9, (0.5, 0.5, 0.0), True),
        (3, [VOLUME] * 3, SIX_TWO_TWO, False),
        (2, [VOLUME] * 2, SIX_TWO_TWO, False),  # fewer images than parts
        (2, [VOLUME] * 3, (0.5, 0.5, 0.0), False),
        (1, [VOLUME] * 3, (1.0, 0.0, 0.0), False),
        (1, [VOLUME, VOLUME, PATIENT], SIX_TWO_TWO, False),  # a patient may be large
    ],
)
def test_slices_of_fewer_volumes_than_parts_are_refused_where_no_patient_is_known(
    groups: int, scans: list[Scan], fractions: tuple[float, float, float], refused: bool
) -> None:
    if not refused:
        check_divisible(groups, scans, fractions)
        return
    wanted = 3 if fractions[2] else 2
    with pytest.raises(
        DataError, match=rf"asks for {wanted} parts, but the {len(scans)} images are of {groups} volume"
    ):
        check_divisible(groups, scans, fractions)


def test_the_volumes_that_cannot_be_parted_are_named() -> None:
    scans = [replace(VOLUME, key=str(i), volume=f"v{i % 2}") for i in range(4)]
    with pytest.raises(DataError, match=r"of 2 volumes \(v0, v1\) and no patient"):
        check_divisible(2, scans, SIX_TWO_TWO)
    with pytest.raises(DataError, match=r"of 1 volume \(f\) and no patient"):
        check_divisible(1, [FOLDER] * 3, SIX_TWO_TWO)


def test_volumes_stay_whole_unless_the_rule_is_to_part_by_image() -> None:
    scans = [scan(f"{v}-{i}", volume=f"v{v}") for v in range(6) for i in range(4)]
    held = defaultdict(set)
    for one in assign_parts(scans, SIX_TWO_TWO, 0, KEEP_VOLUMES):
        held[one.volume].add(one.split)
    assert all(len(parts) == 1 for parts in held.values())
    assert Counter(next(iter(parts)) for parts in held.values()) == {"train": 4, "val": 1, "test": 1}
    parted = assign_parts(scans, SIX_TWO_TWO, 0, BY_IMAGE)
    assert Counter(one.split for one in parted) == {"train": 14, "val": 5, "test": 5}


def test_labels_of_one_patient_each_are_dealt_together_so_that_no_part_is_empty() -> None:
    """Label by label each patient would go to train; then all are dealt at once, the largest first."""
    scans = [
        scan(f"{label}{i}", label=label, patient=label)
        for place, label in enumerate("ABCD")
        for i in range(4 - place)
    ]
    part = {one.patient: one.split for one in assign_parts(scans, (0.5, 0.25, 0.25), 0)}
    assert part == {"A": "train", "B": "val", "C": "test", "D": "train"}
    two = [one for one in scans if one.label in "AB"]
    assert {one.split for one in assign_parts(two, (0.5, 0.25, 0.25), 0)} == {"train"}
