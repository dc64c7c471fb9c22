"""OCTDL: patients that share a picture become one patient."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.shards.pack_inputs import write_image
from tests.shards.published_layouts import list_source


def test_octdl_joins_patients_that_share_a_picture(tmp_path: Path) -> None:
    one = write_image(tmp_path / "d" / "AMD" / "amd_5_1.jpg", 1)
    shutil.copy(one, tmp_path / "d" / "AMD" / "amd_7_1.jpg")
    write_image(tmp_path / "d" / "AMD" / "amd_7_2.jpg", 2)
    write_image(tmp_path / "d" / "NO" / "no_9_1.jpg", 3)
    found = list_source("octdl", tmp_path / "d")
    assert [scan.patient for scan in found.scans] == ["5", "5", "5", "9"]
    assert "1 patients joined with others: same picture, or one patient in a list" in found.notes


def test_the_list_that_octdl_reads_is_not_counted_as_skipped(tmp_path: Path) -> None:
    for name in ("amd_5_1", "amd_7_1"):
        write_image(tmp_path / "d" / "AMD" / f"{name}.jpg", len(name))
    (tmp_path / "d" / "manifest.csv").write_text("file,patient\nAMD/amd_5_1.jpg,x\nAMD/amd_7_1.jpg,x\n")
    (tmp_path / "d" / "AMD" / "more.csv").write_text("a,b\n")
    found = list_source("octdl", tmp_path / "d")
    assert {scan.patient for scan in found.scans} == {"5"}
    assert [note for note in found.notes if note.startswith("manifest.csv: file <- 'file'")]
    skipped = [note for note in found.notes if note.startswith("passed over")]
    assert len(skipped) == 1
    assert skipped[0].startswith("passed over: 1 table, such as AMD/more.csv: not read")


def test_the_real_octdl_has_the_patients_its_list_names(test_data: Path) -> None:
    found = list_source("octdl", test_data / "octdl")
    listed = list_source("folder", test_data / "octdl")
    groups = {scan.origin: scan.patient for scan in listed.scans}
    assert (len(found.scans), len({scan.patient for scan in found.scans})) == (1527, 614)
    assert len({(scan.patient, groups[scan.origin]) for scan in found.scans}) == 614
