"""Each layout, and each of a user's mistakes."""

from __future__ import annotations

import dataclasses
import io
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.config.schema import EvalData
from retfound_dist.errors import DataError, ManifestError
from retfound_dist.evaluate.data.labelled_set import load
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


def config(path: Path | str, budget: int = 10) -> EvalData:
    return EvalData(path=str(path), bad_sample_budget=budget)


def test_octid_folders_keep_their_split(tmp_path: Path) -> None:
    data = load(config(octid_folders(tmp_path)), 28)
    assert data.classes == CLASSES
    assert data.divided_by == "given"
    assert {name: len(part) for name, part in data.parts.items()} == {"train": 12, "val": 12, "test": 12}
    assert all(key.startswith("test/") for key in data.parts["test"].keys)


def test_octid_folders_without_val_take_it_out_of_train(tmp_path: Path) -> None:
    data = load(config(octid_folders(tmp_path, ("train", "test"), each=8)), 28)
    assert len(data.parts["test"]) == 24
    assert len(data.parts["val"]) == 6
    assert len(data.parts["train"]) == 18


def test_class_folders_are_split_by_image_in_each_class(tmp_path: Path) -> None:
    data = load(config(class_folders(tmp_path)), 28)
    assert data.divided_by == "image"
    for part, count in (("train", 6), ("val", 2), ("test", 2)):
        assert Counter(data.parts[part].labels.tolist()) == {0: count, 1: count, 2: count}
    again = load(config(tmp_path), 28)
    assert again.parts["test"].keys == data.parts["test"].keys
    assert again.fingerprint == data.fingerprint


def test_a_listing_beside_the_folders_brings_patients_and_none_straddles(tmp_path: Path) -> None:
    list_patients(class_folders(tmp_path))
    data = load(config(tmp_path), 28)
    assert data.divided_by == "patient"
    held = [set(part.patients) for part in data.parts.values()]
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]
    assert data.counts()["patients"] == {"train": 9, "val": 3, "test": 3}


def test_a_listing_brings_its_own_split(tmp_path: Path) -> None:
    class_folders(tmp_path, each=4)
    parts = ("train", "train", "val", "test")
    write_listing(
        tmp_path,
        [
            {"file": f"{c}/{c}_{i}.jpg", "label": c, "patient": f"{c}{i}", "split": parts[i]}
            for c in CLASSES
            for i in range(4)
        ],
    )
    data = load(config(tmp_path), 28)
    assert data.divided_by == "given"
    assert data.parts["test"].keys == tuple(f"{c}/{c}_3.jpg" for c in CLASSES)


def test_an_image_that_the_listing_does_not_name_is_left_out_by_name(tmp_path: Path) -> None:
    list_patients(class_folders(tmp_path))
    (tmp_path / "MH" / "loose.jpg").write_bytes(image_bytes(1, 99))
    data = load(config(tmp_path), 28)
    assert data.skipped == (("MH/loose.jpg", "is not listed in the manifest.csv beside it"),)


def test_a_csv_alone_names_images_wherever_they_lie(tmp_path: Path) -> None:
    far = class_folders(tmp_path / "far")
    near = class_folders(tmp_path / "lists" / "near", classes=("CSR",), seed=50)
    rows = [
        {"file": str(file), "label": file.parent.name, "patient": file.stem} for file in far.rglob("*.jpg")
    ]
    rows += [
        {"file": f"near/CSR/{file.name}", "label": "CSR", "patient": f"n{file.stem}"}
        for file in near.rglob("*.jpg")
    ]
    rows += [
        {"file": "near/gone.jpg", "label": "CSR", "patient": "g"},
        {"file": str(far / "MH/x.jpg"), "label": ""},
    ]
    write_listing(tmp_path / "lists", rows)
    labels = (tmp_path / "lists" / "manifest.csv").rename(tmp_path / "lists" / "labels.csv")
    data = load(config(labels), 28)
    assert data.divided_by == "patient"
    assert data.classes == CLASSES
    assert sum(len(part) for part in data.parts.values()) == 40
    said = dict(data.skipped)
    assert said[str(far / "MH/x.jpg")] == "has no label in labels.csv"
    assert "No such file" in said["near/gone.jpg"]


def test_a_listing_by_its_own_path_is_the_set_beside_it(tmp_path: Path) -> None:
    list_patients(class_folders(tmp_path))
    whole, listed = load(config(tmp_path), 28), load(config(tmp_path / "manifest.csv"), 28)
    assert listed.fingerprint == whole.fingerprint


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "a.csv",
            "path,age\nx.jpg,40\n",
            r"a\.csv has no column 'label' \(it has 'path', 'age'\): its header must",
        ),
        ("a.csv", "path,class\nx.jpg,MH\n", r"a\.csv: none of its 1 files is there \(x\.jpg\)"),
        ("a.csv", "file,label\n", "no labelled images in data.path="),
        (
            "a.csv",
            "file,label,split\nx.jpg,MH,holdout\n",
            "line 2: split 'holdout' is not train, val or test",
        ),
        ("a.txt", "file,label\n", r"a\.txt is a file, and no \.csv, \.tsv, \.xlsx: give a folder"),
    ],
)
def test_a_file_that_lists_no_images_gets_one_line(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=says):
        load(config(tmp_path / name), 28)


def test_labelled_shards_are_read_with_their_patients(tmp_path: Path) -> None:
    samples = [
        {"key": f"{c}_{i}", "label": c, "patient": f"{c}{i // 2}", "split": None}
        for c in CLASSES
        for i in range(10)
    ]
    data = load(config(shard_set(tmp_path / "s", samples)), 28)
    assert data.divided_by == "patient"
    assert sum(len(part) for part in data.parts.values()) == 30
    train = data.parts["train"]
    bright = [image.mean() for image in train.images]
    assert np.corrcoef(bright, train.labels)[0, 1] > 0.95


def test_shards_without_labels_say_so(tmp_path: Path) -> None:
    root = shard_set(tmp_path / "s", [{"key": "a", "label": None}, {"key": "b", "label": None}])
    with pytest.raises(DataError, match=r"the 2 samples of .* bear no label"):
        load(config(root), 28)


def test_a_damaged_shard_is_refused(tmp_path: Path) -> None:
    root = shard_set(tmp_path / "s", [{"key": c, "label": c} for c in CLASSES])
    tar = root / "oct-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-100])
    with pytest.raises(ManifestError, match="sha256"):
        load(config(root), 28)


def test_test_images_are_square_and_training_images_keep_more(tmp_path: Path) -> None:
    data = load(config(class_folders(tmp_path)), 14)
    assert {image.shape for image in data.parts["test"].images} == {(14, 14)}
    assert {image.shape for image in data.parts["train"].images} == {(28, 34)}


def test_deep_and_coloured_images_are_read(tmp_path: Path) -> None:
    class_folders(tmp_path)
    ramp = np.linspace(0, 40000, 48 * 40).reshape(40, 48)
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "MH" / "deep.png")
    Image.fromarray(np.full((40, 48, 3), 90, np.uint8)).save(tmp_path / "MH" / "colour.bmp")
    data = load(config(tmp_path), 28)
    assert not data.skipped
    images = {k: i for part in data.parts.values() for k, i in zip(part.keys, part.images, strict=True)}
    assert images["MH/deep.png"].max() > 200
    assert 60 < images["MH/deep.png"].mean() < 190


def test_a_truncated_jpeg_is_named_counted_and_left_out(tmp_path: Path) -> None:
    class_folders(tmp_path)
    bad = tmp_path / "MH" / "cut.jpg"
    bad.write_bytes(image_bytes(1, 50)[:400])
    data = load(config(tmp_path), 28)
    assert [key for key, _ in data.skipped] == ["MH/cut.jpg"]
    with pytest.raises(DataError, match=r"1 images .* data.bad_sample_budget=0 \(MH/cut.jpg"):
        load(config(tmp_path, budget=0), 28)


def test_a_one_pixel_image_is_left_out(tmp_path: Path) -> None:
    class_folders(tmp_path)
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    (tmp_path / "MH" / "dot.png").write_bytes(buffer.getvalue())
    assert load(config(tmp_path), 28).skipped == (("MH/dot.png", "is 1x1 pixels: a side is below 32"),)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda root: None, "no labelled images"),
        (lambda root: (root / "notes.txt").write_text("hello"), "no labelled images"),
        (lambda root: class_folders(root, classes=("MH",)), r"one class only \(MH\)"),
    ],
    ids=["empty", "non-images", "one class"],
)
def test_a_folder_that_is_no_labelled_set_gets_one_line(tmp_path: Path, make, says: str) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=says) as caught:
        load(config(tmp_path), 28)
    assert "\n" not in str(caught.value)


def test_images_that_are_none_get_one_line(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.jpg").write_text("hi")
    with pytest.raises(DataError, match=r"none of the 6 images .* can be read"):
        load(config(tmp_path), 28)


def test_a_path_that_does_not_exist_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load(config(tmp_path / "none"), 28)
    with pytest.raises(DataError, match=r"holds no manifest\.json"):
        load(config("memory://nothing/here"), 28)


def test_a_class_missing_from_test_is_an_error(tmp_path: Path) -> None:
    octid_folders(tmp_path)
    for file in (tmp_path / "test" / "MH").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="no image of class MH in the test part"):
        load(config(tmp_path), 28)


def test_a_class_missing_from_val_is_none(tmp_path: Path) -> None:
    octid_folders(tmp_path)
    for file in (tmp_path / "val" / "MH").iterdir():
        file.unlink()
    assert len(load(config(tmp_path), 28).parts["val"]) == 8


def test_the_real_set_is_split_by_patient(test_data: Path) -> None:
    data = load(config(test_data / "octdl"), 56)
    assert data.divided_by == "patient"
    assert len(data.classes) == 7
    assert not set(data.parts["train"].patients) & set(data.parts["test"].patients)
    assert 0.57 < len(data.parts["train"]) / 1527 < 0.63


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
    plain = load(config(make(tmp_path / "set")), 28)
    wrapped = load(config(wrap(tmp_path / "set", below)), 28)
    assert wrapped.classes == plain.classes == CLASSES
    assert wrapped.divided_by == plain.divided_by
    assert {n: part.keys for n, part in wrapped.parts.items()} == {
        n: part.keys for n, part in plain.parts.items()
    }
    assert wrapped.notes == (f"all images lie in {below}: the set is read there, {below} is no label",)
    assert plain.notes == ()


@pytest.mark.parametrize("listing_in", ["", "Set"])
def test_a_listing_of_a_wrapped_set_brings_its_patients(tmp_path: Path, listing_in: str) -> None:
    list_patients(class_folders(tmp_path / "set"))
    rows = (tmp_path / "set" / "manifest.csv").read_text()
    root = wrap(tmp_path / "set", "Set")
    (root / "Set" / "manifest.csv").unlink()
    if not listing_in:
        rows = "\n".join(row if row.startswith("file") else f"Set/{row}" for row in rows.splitlines())
    (root / listing_in / "manifest.csv").write_text(rows)
    data = load(config(root), 28)
    assert data.divided_by == "patient"
    assert data.counts()["patients"] == {"train": 9, "val": 3, "test": 3}
    assert data.skipped == ()


def test_pack_and_evaluate_say_the_same_of_what_they_pass_over(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set")
    for name in ("GONE/a.npy", "GONE/b.npy", "IM0001", "data.zip", "MH/.DS_Store"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(bytes(128) + b"DICM")
    (root / "EMPTY").mkdir()
    (root / "MH" / "out.jpg").symlink_to("/etc/passwd")
    (root / "MH" / "loop").symlink_to("..")
    os.mkfifo(root / "MH" / "pipe.jpg")
    notes = load(config(root), 28).notes
    packed = list_folder(str(root)).notes
    assert notes == tuple(note.replace("source.follow_links", "data.follow_links") for note in packed)
    assert len(notes) == 8
    assert notes[0] == "folders without any image that is read: GONE (2 passed over, such as a.npy)"


def test_a_hub_cache_is_evaluated_by_its_links(tmp_path: Path) -> None:
    blobs = class_folders(tmp_path / "hub" / "blobs")
    for number, path in enumerate(sorted(blobs.rglob("*.jpg"))):
        path.rename(blobs / f"{number}.jpg")
        link = tmp_path / "hub" / "data" / path.parent.name / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../blobs/{number}.jpg")
    data = load(config(tmp_path / "hub"), 28)
    assert data.classes == CLASSES
    assert sum(len(part) for part in data.parts.values()) == 30
    with pytest.raises(DataError, match=r"30 links that lead out of the folder.*data.follow_links=anywhere"):
        load(config(tmp_path / "hub" / "data"), 28)
    trusted = EvalData(path=str(tmp_path / "hub" / "data"), follow_links="anywhere")
    assert sum(len(part) for part in load(trusted, 28).parts.values()) == 30


def test_a_listing_beside_folders_cannot_reach_out_of_them(tmp_path: Path) -> None:
    class_folders(tmp_path / "far")
    root = class_folders(tmp_path / "set")
    rows = [
        {"file": f"{c}/{c}_{i}.jpg", "label": c, "patient": f"{c}{i}"} for c in CLASSES for i in range(10)
    ]
    write_listing(root, [*rows, {"file": "../far/MH/MH_0.jpg", "label": "MH", "patient": "x"}])
    (reason,) = [reason for key, reason in load(config(root), 28).skipped if key.startswith("..")]
    assert "leads out of its folder" in reason


def test_a_lone_class_is_refused_with_what_became_of_the_others(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", classes=("MH",))
    (root / "CSR").mkdir()
    (root / "CSR" / "1.npy").write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"one class only \(MH\).*folders without any image that is read: CSR"
    ):
        load(config(root), 28)


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "JPEG2000", "PPM"])
def test_formats_are_read_by_their_content(tmp_path: Path, kind: str) -> None:
    root = class_folders(tmp_path)
    end = {"WEBP": "webp", "GIF": "gif", "JPEG2000": "jp2", "PPM": "pgm"}[kind]
    for label, name in enumerate(CLASSES):
        (root / name / f"more.{end}").write_bytes(image_bytes(label, 500, kind))
    data = load(config(root), 28)
    assert data.skipped == ()
    assert sum(len(part) for part in data.parts.values()) == 33


def labels_list(root: Path, labels: list[str]) -> EvalData:
    class_folders(root)
    files = [f"{name}/{name}_{n}.jpg" for name in CLASSES for n in range(10)]
    write_listing(root, [{"file": f, "label": label} for f, label in zip(files, labels, strict=True)])
    return config(root / "manifest.csv")


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (
            [str(40 + n) for n in range(30)],
            "30 different numbers from 40 to 69: a measurement such as an age",
        ),
        (
            ["AMD|DME" if n % 5 == 0 else ("AMD", "DME")[n % 2] for n in range(30)],
            r"'AMD\|DME' is several classes",
        ),
        (
            [("Normal", "normal", "AMD")[n % 3] for n in range(30)],
            "'Normal' and 'normal' differ only by capitals",
        ),
        (
            ["CNV", *("AMD", "DME") * 14, "AMD"],
            "only one image of class CNV: a class needs images to train and",
        ),
        ([f"eye {n}" for n in range(30)], "30 images have 30 different labels"),
    ],
)
def test_labels_that_are_no_classes_are_refused_with_what_to_do(
    tmp_path: Path, labels: list[str], says: str
) -> None:
    with pytest.raises(DataError, match=says) as caught:
        load(labels_list(tmp_path, labels), 28)
    assert "\n" not in str(caught.value)


def test_who_insists_gets_the_labels_as_they_are(tmp_path: Path) -> None:
    given = labels_list(tmp_path, [("Normal", "normal", "AMD")[n % 3] for n in range(30)])
    assert load(dataclasses.replace(given, labels_as_given=True), 28).classes == ("AMD", "Normal", "normal")


def test_grades_are_classes_and_a_whole_number_of_excel_is_one_class(tmp_path: Path) -> None:
    given = labels_list(tmp_path, [f"{n % 3}.0" if n % 2 else str(n % 3) for n in range(30)])
    assert load(given, 28).classes == ("0", "1", "2")


def test_a_list_in_excel_says_what_was_read_of_it(tmp_path: Path) -> None:
    from openpyxl import Workbook

    class_folders(tmp_path)
    book = Workbook()
    book.active.append(["File Name", "Diagnosis", "Patient ID", "Age"])
    for name in CLASSES:
        for n in range(10):
            book.active.append([f"{name}/{name}_{n}.jpg", name, 100 * CLASSES.index(name) + n // 2, 40 + n])
    book.save(tmp_path / "list.xlsx")
    data = load(config(tmp_path / "list.xlsx"), 28)
    assert (data.divided_by, data.kinds["patient"]) == ("patient", 30)
    assert data.columns == (
        "list.xlsx: file <- 'File Name', label <- 'Diagnosis', patient <- 'Patient ID'; not used: 'Age'"
    )
    (tmp_path / "list.xlsx").rename(tmp_path / "manifest.xlsx")
    assert load(config(tmp_path), 28).fingerprint == data.fingerprint


def test_a_listed_image_without_label_or_class_folder_is_left_out_by_name(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "loose.jpg").write_bytes(image_bytes(0, 99))
    files = [f"{name}/{name}_{n}.jpg" for name in CLASSES for n in range(10)]
    write_listing(tmp_path, [{"file": file, "patient": file} for file in [*files, "loose.jpg"]])
    data = load(config(tmp_path), 28)
    assert data.classes == CLASSES
    assert data.skipped == (("loose.jpg", "has no label and lies in no class folder"),)
