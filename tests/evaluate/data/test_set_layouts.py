"""What each layout lists, without decoding anything; and what is said where nothing is listed."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from retfound_dist.errors import DataError, ManifestError
from retfound_dist.evaluate.data.set_layouts import (
    LabelledImage,
    list_labelled_images,
    list_samples,
    read_shard,
)
from retfound_dist.formats.shard_set import read_manifest
from shards.sources.folders.folder import list_folder
from tests.evaluate.inputs import (
    CLASSES,
    class_folders,
    image_bytes,
    list_patients,
    octid_folders,
    shard_set,
    write_listing,
)

ALL_FILES = [f"{name}/{name}_{n}.jpg" for name in CLASSES for n in range(10)]


def facts(items: tuple[LabelledImage, ...]) -> list[tuple[str | None, ...]]:
    """What is known of each image, without the way to read it."""
    return [(item.key, item.label, item.patient, item.volume, item.group, item.split) for item in items]


def test_class_folders_give_the_label_and_no_split_and_each_item_reads_its_own_file(tmp_path: Path) -> None:
    listing = list_labelled_images(str(class_folders(tmp_path)))
    assert [item.key for item in listing.items] == sorted(ALL_FILES)
    assert {(item.label, item.split, item.patient) for item in listing.items} == {
        (name, None, None) for name in CLASSES
    }
    for item in listing.items:
        assert item.read() == (tmp_path / item.key).read_bytes()


def test_the_parts_of_octid_folders_are_the_split_and_no_label(tmp_path: Path) -> None:
    listing = list_labelled_images(str(octid_folders(tmp_path, each=2)))
    assert Counter((item.split, item.label) for item in listing.items) == {
        (part, name): 2 for part in ("train", "val", "test") for name in CLASSES
    }
    assert all(item.key.startswith(f"{item.split}/{item.label}/") for item in listing.items)


def test_slices_are_told_from_volumes_by_their_names(tmp_path: Path) -> None:
    for volume in range(2):
        for n in range(3):
            where = tmp_path / "MH" / f"eye{volume}_slice{n}.jpg"
            where.parent.mkdir(exist_ok=True)
            where.write_bytes(image_bytes(0, 3 * volume + n))
    items = list_labelled_images(str(tmp_path)).items
    owners = [item.volume for item in items]
    assert None not in owners
    assert owners[:3] == [owners[0]] * 3
    assert owners[3:] == [owners[3]] * 3
    assert owners[0] != owners[3]


def test_an_image_that_the_listing_does_not_name_is_left_out_by_name(tmp_path: Path) -> None:
    list_patients(class_folders(tmp_path))
    (tmp_path / "MH" / "loose.jpg").write_bytes(image_bytes(1, 99))
    listing = list_labelled_images(str(tmp_path))
    assert listing.skipped == (("MH/loose.jpg", "is not listed in the manifest.csv beside it"),)
    assert len(listing.items) == 30


def test_a_listing_by_its_own_path_is_the_set_beside_it(tmp_path: Path) -> None:
    list_patients(class_folders(tmp_path))
    whole, listed = list_labelled_images(str(tmp_path)), list_labelled_images(str(tmp_path / "manifest.csv"))
    assert facts(listed.items) == facts(whole.items)
    assert [item.read() for item in listed.items] == [item.read() for item in whole.items]


def test_the_listing_s_label_goes_before_the_folder_s_and_a_missing_one_is_the_folder_s(
    tmp_path: Path,
) -> None:
    class_folders(tmp_path)
    rows = [{"file": file, "label": "DME" if file == "MH/MH_0.jpg" else ""} for file in ALL_FILES]
    write_listing(tmp_path, rows)
    labels = {item.key: item.label for item in list_labelled_images(str(tmp_path)).items}
    assert labels == {file: "DME" if file == "MH/MH_0.jpg" else file.split("/")[0] for file in ALL_FILES}


def test_slices_without_a_patient_get_their_volume_s_and_that_is_said(tmp_path: Path) -> None:
    for n in range(4):
        where = tmp_path / "MH" / f"eye_slice{n}.jpg"
        where.parent.mkdir(exist_ok=True)
        where.write_bytes(image_bytes(0, n))
    rows = [{"file": f"MH/eye_slice{n}.jpg", "patient": "p7" if n == 2 else ""} for n in range(4)]
    write_listing(tmp_path, rows)
    listing = list_labelled_images(str(tmp_path))
    assert [item.patient for item in listing.items] == ["p7"] * 4
    assert "the patient of 3 images is taken from other slices of their volume" in listing.notes


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "a.csv",
            "path,age\nx.jpg,40\n",
            r"a\.csv has no column 'label' \(it has 'path', 'age'\): its header must",
        ),
        ("a.csv", "path,class\nx.jpg,MH\n", r"a\.csv: none of its 1 files exists \(x\.jpg\)"),
        ("a.csv", "file,label\n", "no labelled images in data.path="),
        (
            "a.csv",
            "file,label,split\nx.jpg,MH,holdout\n",
            "line 2: split 'holdout' is not train, val or test",
        ),
        ("a.txt", "file,label\n", r"a\.txt is a file, but not a \.csv, \.tsv, \.xlsx: give a folder"),
    ],
)
def test_a_file_that_lists_no_images_gets_one_line(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=says) as caught:
        list_labelled_images(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("files", [[], ["notes.txt"]])
def test_a_folder_without_images_gets_one_line_by_the_setting_s_name(
    tmp_path: Path, files: list[str]
) -> None:
    for name in files:
        (tmp_path / name).write_text("hello")
    with pytest.raises(DataError, match=r"no labelled images in external\.path=") as caught:
        list_labelled_images(str(tmp_path), "external.path")
    assert "\n" not in str(caught.value)


def test_a_path_that_does_not_exist_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        list_labelled_images(str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"has no manifest\.json"):
        list_labelled_images("memory://nothing/here")


def test_samples_of_shards_have_what_their_notes_say_and_their_own_bytes(tmp_path: Path) -> None:
    notes: list[dict[str, str | None]] = [
        {"key": "b", "label": "MH", "patient": "p1", "volume": "v1", "group": "g1", "split": "train"},
        {"key": "a", "label": None},
    ]
    root = str(shard_set(tmp_path / "s", notes))
    unlabelled, labelled = list_samples(root)
    assert facts((unlabelled, labelled)) == [
        ("a", "", None, None, None, None),
        ("b", "MH", "p1", "v1", "g1", "train"),
    ]
    assert labelled.read() == image_bytes(CLASSES.index("MH"), 0)
    listing = list_labelled_images(root)
    assert [item.key for item in listing.items] == ["b"]
    assert listing.skipped == (("a", "has no label"),)


def test_patients_and_volumes_of_several_sources_bear_the_source_s_name(tmp_path: Path) -> None:
    notes: list[dict[str, str | None]] = [
        {"key": source, "label": "MH", "patient": "1", "volume": "v", "source": source} for source in "ab"
    ]
    root = shard_set(tmp_path / "s", notes)
    assert {item.patient for item in list_samples(str(root))} == {"1"}
    tree = json.loads((root / "manifest.json").read_text())
    (root / "manifest.json").write_text(json.dumps({**tree, "sources": {"a": {}, "b": {}}}))
    found = [(item.patient, item.volume, item.group) for item in list_samples(str(root))]
    assert found == [("a/1", "a/v", None), ("b/1", "b/v", None)]


def test_shards_without_labels_say_so(tmp_path: Path) -> None:
    root = shard_set(tmp_path / "s", [{"key": "a", "label": None}, {"key": "b", "label": None}])
    with pytest.raises(DataError, match=r"the 2 samples of .* have no label"):
        list_labelled_images(str(root))


def test_a_damaged_shard_is_refused(tmp_path: Path) -> None:
    root = shard_set(tmp_path / "s", [{"key": c, "label": c} for c in CLASSES])
    tar = root / "oct-000000.tar"
    whole = tar.read_bytes()
    (shard,) = read_manifest(str(root)).shards
    assert read_shard(str(root), shard) == whole
    for damaged in (whole[:-100], whole[:700] + bytes([whole[700] ^ 1]) + whole[701:]):
        tar.write_bytes(damaged)
        with pytest.raises(ManifestError, match="sha256"):
            list_labelled_images(str(root))


def wrap(path: Path, below: str) -> Path:
    """The folder moved down into `below` of itself."""
    moved = path.with_name("moved")
    path.rename(moved)
    (path / below).parent.mkdir(parents=True)
    moved.rename(path / below)
    return path


@pytest.mark.parametrize("below", ["Set", "Published/data"])
@pytest.mark.parametrize("make", [class_folders, octid_folders])
def test_a_set_a_level_too_high_is_the_set_itself(
    tmp_path: Path, make: Callable[[Path], Path], below: str
) -> None:
    plain = list_labelled_images(str(make(tmp_path / "set")))
    wrapped = list_labelled_images(str(wrap(tmp_path / "set", below)))
    assert facts(wrapped.items) == facts(plain.items)
    assert wrapped.notes == (f"all images are in {below}: the set is read there, and {below} is not a label",)
    assert plain.notes == ()


@pytest.mark.parametrize("listing_in", ["", "Set"])
def test_a_listing_of_a_wrapped_set_brings_its_patients(tmp_path: Path, listing_in: str) -> None:
    list_patients(class_folders(tmp_path / "set"))
    plain = list_labelled_images(str(tmp_path / "set"))
    rows = (tmp_path / "set" / "manifest.csv").read_text()
    root = wrap(tmp_path / "set", "Set")
    (root / "Set" / "manifest.csv").unlink()
    if not listing_in:
        rows = "\n".join(row if row.startswith("file") else f"Set/{row}" for row in rows.splitlines())
    (root / listing_in / "manifest.csv").write_text(rows)
    wrapped = list_labelled_images(str(root))
    assert facts(wrapped.items) == facts(plain.items)
    assert len({item.patient for item in wrapped.items}) == 15
    assert wrapped.skipped == ()


def test_pack_and_evaluate_say_the_same_of_what_they_pass_over(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set")
    for name in ("GONE/a.npy", "GONE/b.npy", "IM0001", "data.zip", "MH/.DS_Store"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(bytes(128) + b"DICM")
    (root / "EMPTY").mkdir()
    (root / "MH" / "out.jpg").symlink_to("/etc/passwd")
    (root / "MH" / "loop").symlink_to("..")
    os.mkfifo(root / "MH" / "pipe.jpg")
    notes = list_labelled_images(str(root)).notes
    packed = list_folder(str(root)).notes
    assert notes == tuple(note.replace("source.follow_links", "data.follow_links") for note in packed)
    assert len(notes) == 8
    assert notes[0] == "folders without a readable image: GONE (skipped 2, such as a.npy)"


def test_a_hub_cache_is_listed_by_its_links(tmp_path: Path) -> None:
    blobs = class_folders(tmp_path / "hub" / "blobs")
    for number, path in enumerate(sorted(blobs.rglob("*.jpg"))):
        path.rename(blobs / f"{number}.jpg")
        link = tmp_path / "hub" / "data" / path.parent.name / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../blobs/{number}.jpg")
    inside = list_labelled_images(str(tmp_path / "hub"))
    assert {item.label for item in inside.items} == set(CLASSES)
    assert len(inside.items) == 30
    with pytest.raises(DataError, match=r"30 links that lead out of the folder.*data.follow_links=anywhere"):
        list_labelled_images(str(tmp_path / "hub" / "data"))
    assert len(list_labelled_images(str(tmp_path / "hub" / "data"), links="anywhere").items) == 30


def test_a_list_in_excel_says_what_was_read_of_it(tmp_path: Path) -> None:
    from openpyxl import Workbook

    class_folders(tmp_path)
    book = Workbook()
    book.active.append(["File Name", "Diagnosis", "Patient ID", "Age"])
    for name in CLASSES:
        for n in range(10):
            book.active.append([f"{name}/{name}_{n}.jpg", name, 100 * CLASSES.index(name) + n // 2, 40 + n])
    book.save(tmp_path / "list.xlsx")
    listing = list_labelled_images(str(tmp_path / "list.xlsx"))
    assert [item.patient for item in listing.items[:3]] == ["0", "0", "1"]
    assert listing.columns == (
        "list.xlsx: file <- 'File Name', label <- 'Diagnosis', patient <- 'Patient ID'; not used: 'Age'"
    )
    (tmp_path / "list.xlsx").rename(tmp_path / "manifest.xlsx")
    assert facts(list_labelled_images(str(tmp_path)).items) == facts(listing.items)


def test_a_listed_image_without_label_or_class_folder_is_left_out_by_name(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "loose.jpg").write_bytes(image_bytes(0, 99))
    write_listing(tmp_path, [{"file": file, "patient": file} for file in [*ALL_FILES, "loose.jpg"]])
    listing = list_labelled_images(str(tmp_path))
    assert [item.key for item in listing.items] == sorted(ALL_FILES)
    assert listing.skipped == (("loose.jpg", "has no label and is not in a class folder"),)


def test_requested_columns_of_a_list_are_those_of_each_image(tmp_path: Path) -> None:
    rows = [{"file": f, "label": "x", "Sex": "FM"[i % 2], "age": str(i)} for i, f in enumerate(ALL_FILES)]
    write_listing(class_folders(tmp_path), rows)
    for url in (tmp_path, tmp_path / "manifest.csv"):
        listing = list_labelled_images(str(url), columns=("age", "sex"))
        assert {item.key: dict(item.columns) for item in listing.items} == {
            f: {"age": str(i), "sex": "FM"[i % 2]} for i, f in enumerate(ALL_FILES)
        }
    assert not any(item.columns for item in list_labelled_images(str(tmp_path)).items)


def test_a_folder_without_a_list_has_no_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no list, so it has no column 'sex': give a list") as caught:
        list_labelled_images(str(class_folders(tmp_path)), columns=("sex",))
    assert "\n" not in str(caught.value)


def test_a_misspelt_column_names_the_nearest(tmp_path: Path) -> None:
    write_listing(class_folders(tmp_path), [{"file": file, "device": "A"} for file in ALL_FILES])
    with pytest.raises(DataError, match=r"no column 'devcie' .*did you mean 'device'\?"):
        list_labelled_images(str(tmp_path), columns=("devcie",))


def test_requested_fields_of_samples_are_read_as_cells(tmp_path: Path) -> None:
    samples: list[dict[str, str | None]] = [
        {"key": "a", "label": "MH", "device": "Zeiss"},
        {"key": "b", "label": "MH", "device": "unknown"},
        {"key": "c", "label": "MH"},
    ]
    shard_set(tmp_path / "s", samples)
    items = list_labelled_images(str(tmp_path / "s"), columns=("device",)).items
    assert [item.columns["device"] for item in items] == ["Zeiss", None, None]
    with pytest.raises(DataError, match=r"no sample of .* has a field 'sex' \(they have device, label\)"):
        list_labelled_images(str(tmp_path / "s"), columns=("sex",))
