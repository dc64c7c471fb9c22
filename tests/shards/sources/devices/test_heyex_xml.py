"""Heyex XML exports and the XML of other programs beside scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.errors import DataError
from shards.sources.devices.device import list_device
from shards.sources.devices.volume import FileWithoutScans, pseudonym
from shards.sources.devices.volume_formats import read_volumes
from tests.shards.device_files import FIRST, NAME, NUMBER, scan_stack

STACK = scan_stack(5)


def image(number: int, eye: str, kind: str = "OCT", name: str = "B") -> str:
    side = f"<Laterality>{eye}</Laterality>" if eye else ""
    url = f"<ExamURL>file:///\\\\domain\\folder\\{name}{number}.tif</ExamURL>"
    return f"<Image>{side}<ImageType><Type>{kind}</Type></ImageType><ImageData>{url}</ImageData></Image>"


def export(folder: Path, *series: str) -> Path:
    """A visit's export; the pictures are B0.tif ... B4.tif."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(STACK):
        Image.fromarray(pixels).save(folder / f"B{number}.tif")
    Image.fromarray(STACK[0]).save(folder / "NIR0.tif")
    person = f"<ID>7</ID><PatientID>{NUMBER}</PatientID><LastName>{NAME}</LastName><FirstNames>{FIRST}</FirstNames>"
    whole = f"<HEDX><BODY><Patient>{person}<Study>{''.join(series)}</Study></Patient></BODY></HEDX>"
    (folder / "visit.xml").write_text(whole, encoding="utf-8")
    return folder / "visit.xml"


def test_both_eyes_of_an_export_are_two_volumes(tmp_path: Path) -> None:
    right = "<Laterality>R</Laterality>" + image(0, "R", "LOCALIZER", "NIR") + image(0, "R") + image(1, "R")
    left = "<Laterality>L</Laterality>" + "".join(image(number, "L") for number in (2, 3, 4))
    path = export(tmp_path, f"<Series>{right}</Series>", f"<Series>{left}</Series>")
    volumes = read_volumes(str(path))
    assert [(v.eye, v.patient, len(v.slices)) for v in volumes] == [
        ("R", pseudonym(NUMBER), 2),
        ("L", pseudonym(NUMBER), 3),
    ]
    assert (np.stack(volumes[1].slices) == STACK[2:]).all()
    found = list_device(str(tmp_path))
    assert {(scan.volume[-1], scan.eye) for scan in found.scans if scan.volume} == {("0", "R"), ("1", "L")}
    assert found.notes == ("1 files, 2 volumes",)  # the infrared view belongs to the export


def test_two_eyes_in_one_series_are_two_volumes_too(tmp_path: Path) -> None:
    mixed = "".join(image(number, "RLRLR"[number]) for number in range(5))
    volumes = read_volumes(str(export(tmp_path, f"<Series>{mixed}</Series>")))
    assert [(v.eye, len(v.slices)) for v in volumes] == [("R", 3), ("L", 2)]


def test_an_eye_that_only_the_series_names_is_known(tmp_path: Path) -> None:
    series = "<Series><Laterality>L</Laterality>" + image(0, "") + "</Series>"
    assert [v.eye for v in read_volumes(str(export(tmp_path, series)))] == ["L"]


def test_side_files_of_other_programs_are_ignored_with_a_note(tmp_path: Path) -> None:
    """Not an error, not an unreadable sample, and counted."""
    from scipy.io import savemat

    export(tmp_path, "<Series>" + image(0, "R") + "</Series>")
    for name in ("a_Surfaces.xml", "b_Surfaces.xml"):
        (tmp_path / name).write_text("<?xml version='1.0'?><surface_set><version>1.3</version></surface_set>")
    savemat(tmp_path / "layers.mat", {"thickness": np.zeros((4, 9))})
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / f"report.{NAME}").write_text("x")
    found = list_device(str(tmp_path))
    assert all(scan.slice is not None for scan in found.scans)
    assert found.notes[0] == "1 files, 1 volumes"
    said = "\n".join(found.notes)
    assert "ignored: 2 files: XML of another program, not a Heyex export (v" in said
    assert "ignored: 1 file: a .mat file without an array of images" in said
    assert "passed over: 7 files, not of a device: 5 .tif, 1 .txt, 1 others" in said
    assert NAME not in said


def test_a_folder_of_side_files_only_says_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a_Surfaces.xml").write_text("<surface_set/>")
    with pytest.raises(FileWithoutScans):
        read_volumes(str(tmp_path / "a_Surfaces.xml"))
    with pytest.raises(DataError, match=r"no device files with B-scans .*XML of another program"):
        list_device(str(tmp_path))


def test_broken_xml_is_an_error_and_no_side_file(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<HEDX><BODY>")
    with pytest.raises(DataError, match=r"not a readable \.xml file \(ParseError: no element found"):
        read_volumes(str(tmp_path / "a.xml"))
