"""Slices of one volume are told by their names; ordinary class folders are left alone."""

from __future__ import annotations

import pytest

from retfound_dist.listing.slice_sequences import MAX_GROUP_IMAGES, SlicePlace, SliceSequences


def places(files: list[str]) -> dict[str, SlicePlace]:
    sequences = SliceSequences(files)
    return {file: sequences.place_of(file) for file in files}


def test_a_flat_folder_of_slices_is_one_volume() -> None:
    found = places([f"slice_{n:03d}.tif" for n in range(30)])
    assert found["slice_007.tif"] == SlicePlace("slices", 7)
    assert {place.volume for place in found.values()} == {"slices"}


@pytest.mark.parametrize(
    "name", ["slice_{}", "B-scan {}", "bscan{}", "FRAME-{}", "frame.{}", "slc{}", "slice_{} of 49"]
)
def test_usual_words_for_a_slice_are_known(name: str) -> None:
    found = places(
        [f"A/P1_{name.format(n)}.png" for n in (1, 2)] + [f"A/P2_{name.format(n)}.png" for n in (1, 2)]
    )
    assert [place.volume for place in found.values()] == ["A/P1", "A/P1", "A/P2", "A/P2"]
    assert [place.slice for place in found.values()] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    "files",
    [
        [f"AMD/amd_{n:03d}.jpg" for n in range(50)],
        [f"NORMAL/NORMAL{n}.jpeg" for n in range(206)],
        [f"train/MH/{n}.jpg" for n in range(60)],
        [f"{n}.png" for n in range(60)],
        [f"A/scan{n}.png" for n in range(60)],
        ["A/slice_1.png", "A/other.png"],
        ["A/P1/only.png", "A/P2/only.png"],
        ["/elsewhere/a.png", "/elsewhere/b.png"],
    ],
)
def test_class_folders_and_flat_folders_are_no_volumes(files: list[str]) -> None:
    assert set(places(files).values()) <= {SlicePlace()} or files[0].startswith("/")


def test_a_numbered_folder_below_a_class_folder_is_a_volume() -> None:
    found = places(
        [f"{part}AMD/V{v}/{n:03d}.png" for part in ("", "test/") for v in (1, 2) for n in range(9)]
    )
    assert found["AMD/V1/004.png"] == SlicePlace("AMD/V1", 4)
    assert found["test/AMD/V2/000.png"] == SlicePlace("test/AMD/V2", 0)


def test_other_folders_below_a_class_folder_are_kept_together_whole() -> None:
    found = places(
        ["A/P1/OD/1.png", "A/P1/OD/2.png", "A/P1/OS/1.png", "A/P1/OS/2.png", "A/P1/fundus.png", "A/x.png"]
    )
    assert {place.group for file, place in found.items() if file != "A/x.png"} == {"A/P1"}
    assert found["A/P1/OD/1.png"].volume == "A/P1/OD"
    assert found["A/x.png"] == SlicePlace()


def test_a_folder_that_is_too_large_for_one_eye_is_not_kept_together() -> None:
    files = [f"A/site/{n:05d}.png" for n in range(MAX_GROUP_IMAGES + 1)]
    assert places(files)[files[0]] == SlicePlace()
    assert places(files[:-1])[files[0]] == SlicePlace("A/site", 0)


def test_more_folders_than_there_are_classes_are_volumes() -> None:
    found = places([f"P{p:02d}/{n}.png" for p in range(31) for n in range(3)])
    assert found["P07/2.png"] == SlicePlace("P07", 2)
    assert places([f"P{p:02d}/{n}.png" for p in range(30) for n in range(3)])["P07/2.png"] == SlicePlace()
