"""What is known of the images: unique keys, patients of volumes, labels, parts that divide no volume."""

from __future__ import annotations

import pytest

from retfound_dist.errors import DataError
from retfound_dist.prediction.input_images import (
    InputImage,
    InputListing,
    ScanFacts,
    check_keys,
    label_notes,
    part_of_images,
    with_known_patients,
)


def image(key: str, patient: str | None = None, volume: str | None = None) -> InputImage:
    return InputImage(key, bytes, ScanFacts(patient, None, volume, None))


def test_the_parts_are_the_whole_in_order_and_divide_no_volume() -> None:
    for count in (1, 2, 3, 7, 30):
        images = [image(str(n), volume=f"v{n // 5}" if n < 15 else None) for n in range(20)]
        parts = [part_of_images(images, index, count) for index in range(1, count + 1)]
        assert [one for part in parts for one in part] == images
        volumes = [{one.facts.volume for one in part if one.facts.volume} for part in parts]
        assert sum(map(len, volumes)) == 3


def test_two_images_of_one_key_are_refused() -> None:
    with pytest.raises(DataError, match=r"1 keys of here are of two images \(a\)"):
        check_keys(InputListing([image("a"), image("b"), image("a")]), "here")
    with pytest.raises(DataError, match="no image in here"):
        check_keys(InputListing([]), "here")


def test_a_slice_without_a_patient_gets_that_of_its_volume() -> None:
    images, notes = with_known_patients([image("a", "p1", "v"), image("b", None, "v"), image("c")])
    assert [one.facts.patient for one in images] == ["p1", "p1", None]
    assert notes == ("the patient of 1 images is taken from other slices of their volume",)


def test_labels_that_are_no_class_are_named() -> None:
    listing = InputListing([image("a")], labels=("DME", "NEW"))
    first, second = label_notes(listing, ["DME", "NORMAL"])
    assert "not used" in first
    assert second.startswith("labels that are no class of the classifier: NEW (its classes: DME, NORMAL)")
    assert len(label_notes(InputListing([image("a")], labels=("DME",)), ["DME", "NORMAL"])) == 1


def test_names_of_folders_are_labels_only_where_one_is_a_class() -> None:
    listing = InputListing([image("a")], labels=("P001", "P002"), labels_are_certain=False)
    assert label_notes(listing, ["DME", "NORMAL"]) == ()
    assert len(label_notes(listing, ["DME", "P001"])) == 2
