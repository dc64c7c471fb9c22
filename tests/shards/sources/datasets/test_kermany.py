"""OCT2017: label, patient and slice from the file name; published parts only where patients are apart."""

from __future__ import annotations

from pathlib import Path

from tests.shards.pack_inputs import write_image
from tests.shards.published_layouts import list_source


def test_the_real_kermany_images_have_class_and_patient(test_data: Path) -> None:
    found = list_source("kermany", test_data / "kermany")
    assert len(found.scans) == 46
    assert {scan.label for scan in found.scans} == {"CNV", "DME", "DRUSEN", "NORMAL"}
    assert "46 images found, 109,309 published" in found.notes[0].replace("no part 46 of 0, ", "")
    assert found.scans[0].patient == "1016042"


def test_published_parts_that_share_patients_are_not_used(tmp_path: Path) -> None:
    write_image(tmp_path / "k" / "train" / "CNV" / "CNV-7-1.jpeg", 1)
    write_image(tmp_path / "k" / "test" / "CNV" / "CNV-7-2.jpeg", 2)
    found = list_source("kermany", tmp_path / "k")
    assert [scan.split for scan in found.scans] == [None, None]
    assert any(note.startswith("1 patients are in more than one published part") for note in found.notes)
