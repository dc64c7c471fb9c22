"""Entries of data.subgroups: how they are read, which group each image is in, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from retfound_dist.config.schema import EvalData, External
from retfound_dist.errors import ConfigError, DataError
from retfound_dist.evaluate.data.external_validation import load_with_external
from retfound_dist.evaluate.data.labelled_set import ImageDescription
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.data.subgroup_columns import (
    check_subgroups,
    group_images,
    parse_subgroups,
    requested_columns,
)
from tests.evaluate.inputs import CLASSES, class_folders, write_listing


def described(column: str, *values: str | None) -> list[ImageDescription]:
    """Images with these cells in one column."""
    return [ImageDescription(columns={column: value}) for value in values]


def groups(entry: str, images: Sequence[ImageDescription]) -> list[str]:
    """The name of each image's group."""
    (column,) = parse_subgroups([entry])
    grouping = group_images(column, images)
    return [grouping.names[i] for i in grouping.group_N]


def test_a_range_holds_its_lower_end_and_not_its_upper_end() -> None:
    images = described("age", "49.9", "50", "69", "70", "70,5", "103", "-1", "old", None)
    named = groups("age:0-50,50-70,70+", images)
    assert named == [
        *("0-50", "50-70", "50-70", "70+", "70+", "70+"),
        *("outside", "not a number", "unknown"),
    ]
    (column,) = parse_subgroups(["age: 0-50, 50-70, 70+"])
    assert group_images(column, images).names == (
        *("0-50", "50-70", "70+"),
        *("outside", "not a number", "unknown"),
    )


def test_ranges_may_be_negative_and_have_gaps() -> None:
    images = described("diopters", "-6.5", "-3", "0", "2")
    assert groups("diopters:-10--3,-3-0,1.5+", images) == ["-10--3", "-3-0", "outside", "1.5+"]


def test_values_stand_in_a_fixed_order_and_unknown_ones_at_the_end() -> None:
    (column,) = parse_subgroups(["site"])
    grouping = group_images(column, described("site", "Ulm", None, "bonn", "Ulm", "10", "9"))
    assert grouping.names == ("9", "10", "bonn", "Ulm", "unknown")
    assert grouping.group_N.tolist() == [3, 4, 2, 3, 1, 0]


def test_spellings_of_one_value_are_one_group_and_named() -> None:
    (column,) = parse_subgroups(["sex"])
    grouping = group_images(column, described("sex", "F", "f", "M"))
    assert grouping.names == ("F", "M")
    assert grouping.notes == ("sex: 'F' = 'f' are read as one value",)


def test_eye_and_slice_are_known_without_a_column_of_this_name() -> None:
    images = [ImageDescription(eye="L", slice=3), ImageDescription(eye="R", slice=30), ImageDescription()]
    assert groups("eye", images) == ["L", "R", "unknown"]
    assert groups("slice:0-10,10+", images) == ["0-10", "10+", "unknown"]
    assert requested_columns(parse_subgroups(["eye", "sex", "slice:0-10"])) == ("sex",)


def test_a_column_may_have_a_colon_in_its_name() -> None:
    assert groups("scanner:model", described("scanner:model", "A", "B")) == ["A", "B"]


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (["age:50-0"], "'50-0' in 'age:50-0' is not a range"),
        (["age:0-50,60"], "'60' in 'age:0-50,60' is not a range"),
        (["age:0-50,40-70"], "0-50 and 40-70 of 'age:0-50,40-70' overlap or fall"),
        (["age:50+,0-50"], r"50\+ and 0-50 of 'age:50\+,0-50' overlap or fall"),
        ([":0-50"], "':0-50' has no column before the colon"),
        (["sex", "sex:0-1"], "names the column 'sex' twice"),
        ([" "], "has an empty entry"),
    ],
)
def test_a_wrong_entry_gets_one_line(entries: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse_subgroups(entries)
    assert "\n" not in str(caught.value)


def test_a_column_of_many_values_or_of_none_is_refused() -> None:
    columns = parse_subgroups(["age"])
    check_subgroups(columns, described("age", *map(str, range(20))), "x.csv")
    with pytest.raises(
        DataError, match=r"'age' of x.csv has 21 different values \(0, 1, 10, ...\), more than 20"
    ):
        check_subgroups(columns, described("age", *map(str, range(21))), "x.csv")
    check_subgroups(parse_subgroups(["age:0-9"]), described("age", *map(str, range(21))), "x.csv")
    with pytest.raises(DataError, match=r"no image of x\.csv has a known 'age'"):
        check_subgroups(columns, described("age", None, None), "x.csv")


def listed_set(root: Path, *titles: str) -> Path:
    """Class folders and a list with further columns; every second image is of one sex."""
    class_folders(root)
    rows = [
        {"file": f"{c}/{c}_{i}.jpg", "label": c, **dict.fromkeys(titles, "FM"[i % 2])}
        for c in CLASSES
        for i in range(10)
    ]
    write_listing(root, rows)
    return root


def test_a_set_is_loaded_with_the_columns_of_its_subgroups(tmp_path: Path) -> None:
    listed_set(tmp_path, "Sex")
    data = load_labelled_set(EvalData(path=str(tmp_path), subgroups=("sex",)), 28)
    assert "'Sex'" in data.columns
    for part in data.parts.values():
        for key, description in zip(part.keys, part.descriptions, strict=True):
            assert description.columns == {"sex": "FM"[int(key.partition("_")[2].removesuffix(".jpg")) % 2]}


def test_a_missing_column_names_the_nearest_one_in_one_line(tmp_path: Path) -> None:
    listed_set(tmp_path, "device")
    with pytest.raises(DataError, match=r"has no column 'devise' .*did you mean 'device'\?") as caught:
        load_labelled_set(EvalData(path=str(tmp_path), subgroups=("devise",)), 28)
    assert "\n" not in str(caught.value)


def test_an_external_list_without_the_column_is_refused_by_its_name(tmp_path: Path) -> None:
    listed_set(tmp_path / "set", "sex")
    other = listed_set(tmp_path / "other", "age") / "manifest.csv"
    data = EvalData(path=str(tmp_path / "set"), subgroups=("sex",))
    with pytest.raises(
        DataError, match=r"other/manifest.csv has no column 'sex' \(it has .*'age'\)"
    ) as caught:
        load_with_external(data, External(path=str(other)), 28)
    assert "\n" not in str(caught.value)
