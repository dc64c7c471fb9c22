"""DICOM of every kind that devices and archives write: the scan, upright and not inverted, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread, uid

from retfound_dist.cli import main
from retfound_dist.errors import DataError
from shards.sources.devices.device import list_device
from shards.sources.devices.volume import FileWithoutScans
from shards.sources.devices.volume_formats import read_volumes
from tests.shards.device_files import FIRST, NAME, NUMBER, SECRETS, scan_stack, write_dicom
from tests.shards.dicom_makers import DEEP, STACK, change, compressed, read, streams


def test_a_window_and_a_rescale_are_left_aside_and_said(tmp_path: Path) -> None:
    plain = read(write_dicom(tmp_path / "a.dcm", DEEP * 16))
    path = write_dicom(tmp_path / "b.dcm", DEEP * 16, WindowCenter=100, WindowWidth=50)
    change(path, RescaleSlope=3, RescaleIntercept=-1000)
    assert (read(path) == plain).all()
    assert read_volumes(str(path))[0].not_applied == ("window", "rescale")
    notes = list_device(str(tmp_path)).notes
    assert notes[1] == (
        "left aside: window or rescale of 1 file (rescale 1, window 1); docs/device_files.md says why"
    )


def test_a_file_that_ends_in_its_pixels_is_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STACK)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError):
        read(path)


def test_a_compressed_file_cut_short_is_an_error_and_not_left_aside(tmp_path: Path) -> None:
    path = compressed(write_dicom(tmp_path / "a.dcm", STACK), uid.JPEGLSLossless, streams(STACK, "ls"))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError) as caught:
        read(path)
    assert not isinstance(caught.value, FileWithoutScans)


def test_dicom_is_found_under_any_name_and_without_its_preamble(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    names = ("a.dcm", "b.DCM", "c.dicom", "d.ima", "IM00001", "f.0003", "g.img", "h.dat")
    for number, name in enumerate(names):
        write_dicom(folder / name, scan_stack(1, first=number))
    whole = write_dicom(folder / "bare.dcm", scan_stack(1, first=50)).read_bytes()
    (folder / "bare.dcm").write_bytes(whole[132:])
    (folder / "noise").write_bytes(bytes(500))
    found = list_device(str(folder))
    assert sum(scan.slice is not None for scan in found.scans) == len(names) + 1
    assert not [scan for scan in found.scans if scan.slice is None]
    assert "passed over: 1 file, no device file by name or content: 1 others" in found.notes
    assert not any(name.split(".")[0] in scan.origin for scan in found.scans for name in ("IM00001", "noise"))


def test_other_modalities_and_directories_are_left_aside_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_dicom(folder / "a.dcm", STACK)
    for name in ("b.dcm", "c.dcm"):
        write_dicom(folder / name, STACK[:1], modality="OP")
    write_dicom(folder / "d.dcm", STACK[:1], modality=f"{NAME}")
    path = write_dicom(folder / "DICOMDIR", STACK[:1])
    file = dcmread(path)
    file.file_meta.MediaStorageSOPClassUID = uid.MediaStorageDirectoryStorage
    file.save_as(path)
    with pytest.raises(FileWithoutScans):
        read_volumes(str(path))
    assert main(["pack", str(config(tmp_path)), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "left aside: 2 files: DICOM of modality OP, not OPT" in said
    assert "1 file: a DICOMDIR" in said
    assert "1 file: DICOM of modality (unknown), not OPT" in said
    for path in folder.iterdir():
        path.unlink() if path.name == "a.dcm" else None
    assert main(["pack", str(config(tmp_path)), "--dry-run"]) == 2
    assert "modality OP, not OPT" in capsys.readouterr().err


def config(folder: Path) -> Path:
    path = folder / "c.toml"
    path.write_text(f'[source]\nkind = "device"\npath = "{folder}/in"\n[out]\nurl = "{folder}/out"\n')
    return path


def test_a_library_s_own_words_are_kept_and_nobody_s_name(tmp_path: Path) -> None:
    """The folder, the number and the name stand in the text that pydicom raises here."""
    folder = tmp_path / f"{NAME}_{FIRST}"
    folder.mkdir()
    path = write_dicom(folder / "a.dcm", STACK, PhotometricInterpretation=f"{FIRST} {NUMBER}"[:16])
    with pytest.raises(DataError) as caught:
        read(path)
    said = str(caught.value)
    assert "Photometric Interpretation" in said
    for secret in (*SECRETS, str(tmp_path)):
        assert secret not in said
