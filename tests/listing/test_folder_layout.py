"""What the folders above an image say: part, class, and where a set begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.errors import DataError
from retfound_dist.files.folder_walk import FolderFiles
from retfound_dist.files.image_files import find_files
from retfound_dist.listing.folder_layout import (
    FolderLayout,
    folders_without_images,
    layout_notes,
    layout_of,
    part_of,
)


def folder(root: Path, *files: str) -> FolderFiles:
    for file in files:
        path = root / file
        if file.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    return find_files(str(root))


def read(found: FolderFiles) -> tuple[FolderLayout, dict[str, tuple[str | None, str | None]]]:
    layout = layout_of(found)
    return layout, {path: layout.part_and_class(path.rpartition("/")[0]) for path in found.paths}


@pytest.mark.parametrize("wrapper", ["", "Set/", "Published_Set/data v2/", "a/b/c/"])
def test_a_set_one_or_more_levels_down_is_read_from_there(tmp_path: Path, wrapper: str) -> None:
    files = [f"{wrapper}{part}/{name}/1.jpg" for part in ("train", "val", "test") for name in ("CNV", "DME")]
    layout, read_as = read(folder(tmp_path, *files, "__MACOSX/._x.jpg", ".git/a.jpg", "readme.txt"))
    assert [read_as[file] for file in files] == [
        (part, name) for part in ("train", "val", "test") for name in ("CNV", "DME")
    ]
    assert [note.startswith(f"all images are in {wrapper.rstrip('/')}") for note in layout.notes] == [
        True
    ] * bool(wrapper)
    assert layout.relative_path(files[0]) == "train/CNV/1.jpg"


def test_wrapped_class_folders_never_have_the_wrapper_for_a_label(tmp_path: Path) -> None:
    layout, read_as = read(folder(tmp_path, "Set/CNV/1.jpg", "Set/NORMAL/2.jpg"))
    assert set(read_as.values()) == {(None, "CNV"), (None, "NORMAL")}
    assert "all images are in Set: the set is read there, and Set is not a label" in layout.notes


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *[
            (name, "train")
            for name in ("train", "Training", "TRAIN", "train_set", "01-train", "TrainingImages")
        ],
        *[(name, "val") for name in ("valid", "Validation", "VAL", "val_data")],
        *[(name, "test") for name in ("TEST", "Testing", "test set", "TestSet")],
        *[(name, None) for name in ("CNV", "trainee", "images", "testis", "", "42")],
    ],
)
def test_parts_are_known_as_data_sets_spell_them(name: str, part: str | None) -> None:
    assert part_of(name) == part


def test_parts_of_unusual_spelling_are_said(tmp_path: Path) -> None:
    layout, read_as = read(folder(tmp_path, "Train_Set/A/1.jpg", "TestImages/A/2.jpg"))
    assert list(read_as.values()) == [("test", "A"), ("train", "A")]
    assert layout.notes == ("folders read as parts: TestImages as test, Train_Set as train",)


def test_a_folder_of_images_beside_the_parts_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has the parts test, train and also images in holdout: rename"):
        layout_of(folder(tmp_path, "train/A/1.jpg", "test/A/2.jpg", "holdout/A/3.jpg"))


def test_sets_side_by_side_are_refused_with_the_right_path(tmp_path: Path) -> None:
    found = folder(tmp_path, "One/train/A/1.jpg", "One/test/B/2.jpg", "Two/train/A/3.jpg")
    with pytest.raises(
        DataError, match=r"one level too high: One, Two have parts.*give data.path=\S+/One, and the other"
    ):
        layout_of(found, "data.path")


def test_one_folder_of_folders_beside_loose_images_is_refused_with_the_right_path(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"give source.path=\S+/Set, or move the loose images to another place"
    ):
        layout_of(folder(tmp_path, "Set/A/1.jpg", "Set/B/2.jpg", "overview.png"))


def test_class_folders_that_hold_parts_give_both(tmp_path: Path) -> None:
    layout, read_as = read(folder(tmp_path, "A/train/1.jpg", "A/test/2.jpg", "B/train/3.jpg"))
    assert read_as == {
        "A/train/1.jpg": ("train", "A"),
        "A/test/2.jpg": ("test", "A"),
        "B/train/3.jpg": ("train", "B"),
    }
    assert "each class folder has parts" in layout.notes[0]


def test_a_folder_between_parts_and_classes_is_no_class(tmp_path: Path) -> None:
    layout, read_as = read(
        folder(tmp_path, "train/images/A/1.jpg", "train/images/B/1.jpg", "test/images/A/2.jpg")
    )
    assert set(read_as.values()) == {("train", "A"), ("train", "B"), ("test", "A")}
    assert layout.notes == ("in each part the classes are read from images",)


def test_plain_layouts_are_read_without_a_word(tmp_path: Path) -> None:
    for name, files in {
        "flat": ["1.jpg", "2.jpg"],
        "classes": ["A/1.jpg", "B/deep/er/2.jpg"],
        "parts": ["train/A/1.jpg", "Val/A/2.jpg", "test/B/3.jpg"],
        "one part": ["train/A/1.jpg"],
    }.items():
        found = folder(tmp_path / name, *files)
        assert layout_notes(found, layout_of(found), "") == (), name


def test_one_class_alone_and_loose_images_are_said(tmp_path: Path) -> None:
    assert layout_of(folder(tmp_path / "a", "CNV/1.jpg", "CNV/2.jpg")).notes == (
        "there is only one class folder: every image has the label CNV",
    )
    (note,) = layout_of(folder(tmp_path / "b", "A/1.jpg", "B/2.jpg", "loose.jpg")).notes
    assert "in no class folder" in note


def test_classes_whose_folders_hold_the_same_names_are_doubted(tmp_path: Path) -> None:
    found = folder(tmp_path, "One/CNV/1.jpg", "One/DME/2.jpg", "Two/CNV/3.jpg", "Two/DME/4.jpg")
    (note,) = layout_of(found).notes
    assert "the classes One, Two all have folders CNV, DME" in note


@pytest.mark.parametrize("base", ["", "Set/"])
def test_a_class_that_lost_all_its_files_is_named(tmp_path: Path, base: str) -> None:
    files = [f"{base}A/1.jpg", f"{base}B/2.jpg", f"{base}C/3.npy", f"{base}C/4.npy", f"{base}E/"]
    found = folder(tmp_path, *files)
    assert folders_without_images(found, layout_of(found)) == [
        "folders without a readable image: C (skipped 2, such as 3.npy)",
        "empty class folders: E",
    ]


def test_a_class_that_vanished_from_one_part_is_named_by_it(tmp_path: Path) -> None:
    found = folder(
        tmp_path, "train/A/1.jpg", "train/B/2.jpg", "test/A/3.jpg", "test/B/4.dcm", "val/A/", "val/B/"
    )
    lines = folders_without_images(found, layout_of(found))
    assert lines[0].startswith("folders without a readable image: test/B (skipped 1")
    assert lines[1] == "empty class folders: val/A, val/B"


def test_thousands_of_empty_folders_make_one_short_line(tmp_path: Path) -> None:
    found = folder(tmp_path, "A/1.jpg", "B/1.jpg", *(f"c{number}/" for number in range(2000)))
    (line,) = folders_without_images(found, layout_of(found))
    assert "1,990 more" in line
    assert len(line) < 300


def test_labels_from_upper_folders_are_said_where_folders_below_them_may_be_the_classes(
    tmp_path: Path,
) -> None:
    (note,) = layout_of(
        folder(tmp_path, "octdl/AMD/1.jpg", "octdl/NO/2.jpg", "oct2017/CNV/3.jpg", "oct2017/DME/4.jpg")
    ).notes
    assert note.startswith(
        "the labels are the top folders (oct2017, octdl), not the folders in them such as oct2017/CNV"
    )
