"""Images of a folder: with the keys of an evaluation, the list beside them, and device files among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.errors import DataError
from retfound_dist.evaluate.data.set_layouts import list_labelled_images
from retfound_dist.prediction.folder_inputs import list_folder_inputs
from tests.evaluate.inputs import class_folders, image_bytes, list_patients, octid_folders, write_listing
from tests.shards.device_files import reflectance, scan_stack, write_vol


@pytest.mark.parametrize("layout", ["classes", "parts", "deeper", "listed", "listed deeper"])
def test_keys_and_facts_are_those_of_an_evaluation(layout: str, tmp_path: Path) -> None:
    inner = tmp_path / "Set/OCT" if "deeper" in layout else tmp_path
    if layout == "parts":
        octid_folders(inner)
    else:
        class_folders(inner, each=3)
    if "listed" in layout:
        list_patients(inner)
    expected = list_labelled_images(str(tmp_path)).items
    images = list_folder_inputs(str(tmp_path)).images
    assert [one.key for one in images] == [one.key for one in expected]
    for one, other in zip(images, expected, strict=True):
        assert (one.facts.patient, one.facts.volume, one.facts.slice) == (
            other.patient,
            other.volume,
            other.slice,
        )
        assert callable(one.content)
        assert one.content() == other.read()


def test_a_list_gives_patient_eye_volume_and_slice_and_names_absent_files(tmp_path: Path) -> None:
    class_folders(tmp_path, each=2)
    row = {"file": "MH/MH_0.jpg", "patient": "p1", "eye": "OD", "volume": "v1", "slice": "3"}
    write_listing(tmp_path, [row, row | {"file": "MH/absent.jpg", "patient": "", "eye": "", "slice": ""}])
    listing = list_folder_inputs(str(tmp_path))
    facts = {one.key: one.facts for one in listing.images}
    assert len(facts) == 7
    assert facts["MH/MH_0.jpg"].eye == "R"
    assert (facts["MH/MH_0.jpg"].volume, facts["MH/MH_0.jpg"].slice) == ("v1", 3)
    assert facts["MH/absent.jpg"].patient == "p1"
    assert facts["MH/MH_1.jpg"].patient is None
    assert any("1 of 2 listed files do not exist: MH/absent.jpg" in note for note in listing.notes)


def test_device_files_and_pictures_of_one_folder_are_both_read(tmp_path: Path) -> None:
    write_vol(tmp_path / "scan.vol", reflectance(scan_stack(3)))
    (tmp_path / "a.jpg").write_bytes(image_bytes(0, 1))
    (tmp_path / "notes.txt").write_text("x")
    listing = list_folder_inputs(str(tmp_path))
    first, *slices = listing.images
    assert first.key == "a.jpg"
    assert [one.facts.slice for one in slices] == [0, 1, 2]
    assert len({one.facts.volume for one in slices}) == 1
    assert slices[0].facts.eye == "R"
    text = "\n".join(listing.notes)
    assert "1 files, 1 volumes" in text
    assert "1 .txt" in text
    assert ".jpg" not in text


def test_pictures_of_a_heyex_export_are_read_once(tmp_path: Path, test_data: Path) -> None:
    listing = list_folder_inputs(str(test_data / "device" / "heyex_xml"))
    # B11.tif is not in the export.
    assert [one.facts.slice for one in listing.images] == [None, *range(10)]
    assert listing.images[0].key == "B11.tif"


def test_files_that_are_passed_over_are_named(tmp_path: Path) -> None:
    class_folders(tmp_path / "in", each=1)
    (tmp_path / "in/x.npy").write_bytes(b"x")
    (tmp_path / "far.jpg").write_bytes(image_bytes(0, 1))
    (tmp_path / "in/far.jpg").symlink_to(tmp_path / "far.jpg")
    text = "\n".join(list_folder_inputs(str(tmp_path / "in")).notes)
    assert "1 file .npy, such as x.npy: not an image" in text
    assert "--follow-links follows them" in text
    assert len(list_folder_inputs(str(tmp_path / "in"), "anywhere").images) == 4


def test_a_folder_that_evaluate_refuses_is_predicted(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", each=1)
    class_folders(tmp_path / "other", each=1)
    with pytest.raises(DataError, match="also images in other"):
        list_labelled_images(str(tmp_path))
    assert len(list_folder_inputs(str(tmp_path)).images) == 6


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no images in .*passed over: 1 file .npy"):
        list_folder_inputs(str(tmp_path))


def test_labels_are_certain_only_from_a_list(tmp_path: Path) -> None:
    class_folders(tmp_path, each=1)
    listing = list_folder_inputs(str(tmp_path))
    assert listing.labels == ("CSR", "MH", "NORMAL")
    assert not listing.labels_are_certain
    list_patients(tmp_path)
    assert list_folder_inputs(str(tmp_path)).labels_are_certain


def test_device_files_are_counted_while_they_are_opened(tmp_path: Path) -> None:
    for number in range(3):
        write_vol(tmp_path / f"{number}.vol", reflectance(scan_stack(1)))
    counts: list[tuple[int, int]] = []
    list_folder_inputs(str(tmp_path), on_progress=lambda *count: counts.append(count))
    assert counts == [(0, 3), (1, 3), (2, 3)]
