"""What the adapters of published sets share: counts against the published ones, short notes, natural order."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.errors import DataError
from shards.images.scan import Scan
from shards.sources.folders.published import (
    compare_counts,
    count_labels,
    ignored_note,
    image_scan,
    list_files,
    natural_order,
    require_scans,
    short_list,
    stem,
)
from tests.shards.pack_inputs import write_image


def test_counts_are_compared_by_name_and_equal_ones_give_no_note() -> None:
    assert compare_counts({"AMD": 3, "NO": 2}, {"AMD": 3, "NO": 2}, "images") == []
    assert compare_counts({"AMD": 1200, "X": 1}, {"AMD": 1231, "NO": 332}, "images") == [
        "1,201 images found, 1,563 published: AMD 1,200 of 1,231, NO 0 of 332, X 1 of 0"
    ]


def test_slices_sort_by_their_numbers_and_not_by_their_digits() -> None:
    assert sorted(["v10/2.bmp", "v2/10.bmp", "v2/9.bmp"], key=natural_order) == [
        "v2/9.bmp",
        "v2/10.bmp",
        "v10/2.bmp",
    ]


def test_a_note_names_the_first_five_files_and_counts_the_others() -> None:
    files = [f"{letter}.png" for letter in "abcdefg"]
    assert short_list(files[:5]) == "a.png, b.png, c.png, d.png, e.png"
    assert ignored_note(files, "no class") == [
        "7 files ignored (no class): a.png, b.png, c.png, d.png, e.png and 2 more"
    ]
    assert ignored_note([], "no class") == []


def test_files_are_listed_with_their_sizes_and_an_empty_folder_names_what_is_missing(tmp_path: Path) -> None:
    image = write_image(tmp_path / "set" / "AMD" / "1.png")
    root, sizes, _ = list_files(str(tmp_path / "set"), "images", "inside")
    assert sizes == {"AMD/1.png": image.stat().st_size}
    scan = image_scan(root, "AMD/1.png", 7, "set", "AMD_1", label="AMD")
    assert scan.read() == image.read_bytes()
    assert (scan.origin, scan.size, scan.label) == ("AMD/1.png", 7, "AMD")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no Subject_\*\.mat files in .*empty"):
        list_files(str(tmp_path / "empty"), "Subject_*.mat files", "inside", (".mat",))


def test_a_folder_without_one_file_of_the_set_is_an_error_that_repeats_the_notes() -> None:
    with pytest.raises(
        DataError, match=r"data does not have the layout of the published set .*3 files ignored"
    ):
        require_scans([], "data", ["3 files ignored"])
    scan = Scan(key="a", origin="a.png", source="s", read=bytes)
    assert require_scans([scan], "data", ["a note"]).notes == ("a note",)
    assert count_labels([scan]) == {"(none)": 1}
    assert stem("AMD/amd_1.2.jpg") == "amd_1.2"
