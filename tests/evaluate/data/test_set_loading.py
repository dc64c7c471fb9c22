"""A labelled set as it is loaded: parts, what is left out, and each of a user's mistakes."""

from __future__ import annotations

import dataclasses
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.config.schema import EvalData
from retfound_dist.errors import DataError
from retfound_dist.evaluate.data.set_loading import load_labelled_set
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
    data = load_labelled_set(config(octid_folders(tmp_path)), 28)
    assert data.classes == CLASSES
    assert data.split_source == "given"
    assert {name: len(part) for name, part in data.parts.items()} == {"train": 12, "val": 12, "test": 12}
    assert all(key.startswith("test/") for key in data.parts["test"].keys)


def test_octid_folders_without_val_take_it_out_of_train(tmp_path: Path) -> None:
    data = load_labelled_set(config(octid_folders(tmp_path, ("train", "test"), each=8)), 28)
    assert len(data.parts["test"]) == 24
    assert len(data.parts["val"]) == 6
    assert len(data.parts["train"]) == 18


def test_class_folders_are_split_by_image_in_each_class(tmp_path: Path) -> None:
    data = load_labelled_set(config(class_folders(tmp_path)), 28)
    assert data.split_source == "image"
    for part, count in (("train", 6), ("val", 2), ("test", 2)):
        assert Counter(data.parts[part].labels.tolist()) == {0: count, 1: count, 2: count}
    again = load_labelled_set(config(tmp_path), 28)
    assert again.parts["test"].keys == data.parts["test"].keys
    assert again.fingerprint == data.fingerprint


def test_a_listing_beside_the_folders_brings_patients_and_none_straddles(tmp_path: Path) -> None:
    list_patients(class_folders(tmp_path))
    data = load_labelled_set(config(tmp_path), 28)
    assert data.split_source == "patient"
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
    data = load_labelled_set(config(tmp_path), 28)
    assert data.split_source == "given"
    assert data.parts["test"].keys == tuple(f"{c}/{c}_3.jpg" for c in CLASSES)


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
    data = load_labelled_set(config(labels), 28)
    assert data.split_source == "patient"
    assert data.classes == CLASSES
    assert sum(len(part) for part in data.parts.values()) == 40
    said = dict(data.skipped)
    assert said[str(far / "MH/x.jpg")] == "has no label in labels.csv"
    assert "No such file" in said["near/gone.jpg"]


def test_labelled_shards_are_read_with_their_patients(tmp_path: Path) -> None:
    samples = [
        {"key": f"{c}_{i}", "label": c, "patient": f"{c}{i // 2}", "split": None}
        for c in CLASSES
        for i in range(10)
    ]
    data = load_labelled_set(config(shard_set(tmp_path / "s", samples)), 28)
    assert data.split_source == "patient"
    assert sum(len(part) for part in data.parts.values()) == 30
    train = data.parts["train"]
    bright = [image.mean() for image in train.images]
    assert np.corrcoef(bright, train.labels)[0, 1] > 0.95


def test_deep_and_coloured_images_are_read(tmp_path: Path) -> None:
    class_folders(tmp_path)
    ramp = np.linspace(0, 40000, 48 * 40).reshape(40, 48)
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "MH" / "deep.png")
    Image.fromarray(np.full((40, 48, 3), 90, np.uint8)).save(tmp_path / "MH" / "colour.bmp")
    data = load_labelled_set(config(tmp_path), 28)
    assert not data.skipped
    images = {k: i for part in data.parts.values() for k, i in zip(part.keys, part.images, strict=True)}
    assert images["MH/deep.png"].max() > 200
    assert 60 < images["MH/deep.png"].mean() < 190


def test_a_truncated_jpeg_is_named_counted_and_left_out(tmp_path: Path) -> None:
    class_folders(tmp_path)
    bad = tmp_path / "MH" / "cut.jpg"
    bad.write_bytes(image_bytes(1, 50)[:400])
    data = load_labelled_set(config(tmp_path), 28)
    assert [key for key, _ in data.skipped] == ["MH/cut.jpg"]
    with pytest.raises(DataError, match=r"1 images .* data.bad_sample_budget=0 \(MH/cut.jpg"):
        load_labelled_set(config(tmp_path, budget=0), 28)


def test_a_one_pixel_image_is_left_out(tmp_path: Path) -> None:
    class_folders(tmp_path)
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    (tmp_path / "MH" / "dot.png").write_bytes(buffer.getvalue())
    assert load_labelled_set(config(tmp_path), 28).skipped == (
        ("MH/dot.png", "is 1x1 pixels: a side is below 32"),
    )


def test_a_set_of_one_class_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fewer than two classes \(MH\)") as caught:
        load_labelled_set(config(class_folders(tmp_path, classes=("MH",))), 28)
    assert "\n" not in str(caught.value)


def test_images_that_are_none_get_one_line(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.jpg").write_text("hi")
    with pytest.raises(DataError, match=r"none of the 6 images .* can be read"):
        load_labelled_set(config(tmp_path), 28)


def test_a_class_missing_from_test_is_an_error(tmp_path: Path) -> None:
    octid_folders(tmp_path)
    for file in (tmp_path / "test" / "MH").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="no image of class MH in the test part"):
        load_labelled_set(config(tmp_path), 28)


def test_a_class_missing_from_val_is_none(tmp_path: Path) -> None:
    octid_folders(tmp_path)
    for file in (tmp_path / "val" / "MH").iterdir():
        file.unlink()
    assert len(load_labelled_set(config(tmp_path), 28).parts["val"]) == 8


def test_the_real_set_is_split_by_patient(test_data: Path) -> None:
    data = load_labelled_set(config(test_data / "octdl"), 56)
    assert data.split_source == "patient"
    assert len(data.classes) == 7
    assert not set(data.parts["train"].patients) & set(data.parts["test"].patients)
    assert 0.57 < len(data.parts["train"]) / 1527 < 0.63


def test_a_listing_beside_folders_cannot_reach_out_of_them(tmp_path: Path) -> None:
    class_folders(tmp_path / "far")
    root = class_folders(tmp_path / "set")
    rows = [
        {"file": f"{c}/{c}_{i}.jpg", "label": c, "patient": f"{c}{i}"} for c in CLASSES for i in range(10)
    ]
    write_listing(root, [*rows, {"file": "../far/MH/MH_0.jpg", "label": "MH", "patient": "x"}])
    (reason,) = [
        reason for key, reason in load_labelled_set(config(root), 28).skipped if key.startswith("..")
    ]
    assert "leads out of its folder" in reason


def test_a_lone_class_is_refused_with_what_became_of_the_others(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", classes=("MH",))
    (root / "CSR").mkdir()
    (root / "CSR" / "1.npy").write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"fewer than two classes \(MH\).*folders without a readable image: CSR"
    ):
        load_labelled_set(config(root), 28)


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "JPEG2000", "PPM"])
def test_formats_are_read_by_their_content(tmp_path: Path, kind: str) -> None:
    root = class_folders(tmp_path)
    end = {"WEBP": "webp", "GIF": "gif", "JPEG2000": "jp2", "PPM": "pgm"}[kind]
    for label, name in enumerate(CLASSES):
        (root / name / f"more.{end}").write_bytes(image_bytes(label, 500, kind))
    data = load_labelled_set(config(root), 28)
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
            "only one image of class CNV, but a class needs images for training and",
        ),
        ([f"eye {n}" for n in range(30)], "30 images have 30 different labels"),
    ],
)
def test_labels_that_are_no_classes_are_refused_with_what_to_do(
    tmp_path: Path, labels: list[str], says: str
) -> None:
    with pytest.raises(DataError, match=says) as caught:
        load_labelled_set(labels_list(tmp_path, labels), 28)
    assert "\n" not in str(caught.value)


def test_who_insists_gets_the_labels_as_they_are(tmp_path: Path) -> None:
    given = labels_list(tmp_path, [("Normal", "normal", "AMD")[n % 3] for n in range(30)])
    assert load_labelled_set(dataclasses.replace(given, labels_as_given=True), 28).classes == (
        "AMD",
        "Normal",
        "normal",
    )


def test_grades_are_classes_and_a_whole_number_of_excel_is_one_class(tmp_path: Path) -> None:
    given = labels_list(tmp_path, [f"{n % 3}.0" if n % 2 else str(n % 3) for n in range(30)])
    assert load_labelled_set(given, 28).classes == ("0", "1", "2")
