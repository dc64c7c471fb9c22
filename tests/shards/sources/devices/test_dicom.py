"""DICOM of every kind that devices and archives write: the scan, upright and not inverted, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from retfound_dist.cli import main
from retfound_dist.errors import DataError
from shards.sources.devices.device import list_device
from shards.sources.devices.volume import FileWithoutScans, pseudonym
from shards.sources.devices.volume_formats import read_volumes
from tests.shards.device_files import FIRST, NAME, NUMBER, SECRETS, scan_stack, write_dicom
from tests.shards.dicom_makers import DEEP, STACK, change, compressed, read, streams


def test_a_window_and_a_rescale_are_not_applied_and_a_note_says_it(tmp_path: Path) -> None:
    plain = read(write_dicom(tmp_path / "a.dcm", DEEP * 16))
    path = write_dicom(tmp_path / "b.dcm", DEEP * 16, WindowCenter=100, WindowWidth=50)
    change(path, RescaleSlope=3, RescaleIntercept=-1000)
    assert (read(path) == plain).all()
    assert read_volumes(str(path))[0].ignored_settings == ("window", "rescale")
    notes = list_device(str(tmp_path)).notes
    assert notes[1].startswith("experimental: the reader of .dcm files")
    assert notes[2] == (
        "not applied: window or rescale of 1 file (rescale 1, window 1); docs/device_files.md says why"
    )


def test_a_file_that_ends_in_its_pixels_is_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STACK)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError):
        read(path)


def test_a_compressed_file_cut_short_is_an_error_and_not_ignored(tmp_path: Path) -> None:
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
    assert "passed over: 1 file, not of a device: 1 others" in found.notes
    assert not any(name.split(".")[0] in scan.origin for scan in found.scans for name in ("IM00001", "noise"))


def test_other_modalities_and_directories_are_ignored_counted_and_named(
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
    assert "ignored: 2 files: DICOM of modality OP, not OPT" in said
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


def test_missing_pixels_and_sizes_are_named(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STACK)
    with pytest.raises(DataError, match="has no pixel data"):
        read(change(path, PixelData=None))
    with pytest.raises(DataError, match="has no Rows"):
        read(change(path, Rows=None))


def laterality(eye: str) -> Dataset:
    """A functional group of frames of one eye."""
    anatomy, group = Dataset(), Dataset()
    anatomy.FrameLaterality = eye
    group.FrameAnatomySequence = Sequence([anatomy])
    return group


def test_the_eye_comes_from_wherever_a_device_writes_it_and_both_is_none(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STACK)

    def eyes(**more: Any) -> list[str | None]:
        return [volume.eye for volume in read_volumes(str(change(path, **more)))]

    assert eyes() == ["L"]
    assert eyes(ImageLaterality="B") == [None]
    assert eyes(ImageLaterality=None) == [None]
    assert eyes(Laterality="R") == ["R"]
    assert eyes(Laterality=None, SharedFunctionalGroupsSequence=Sequence([laterality("R")])) == ["R"]
    each = [laterality("L") for _ in STACK]
    assert eyes(SharedFunctionalGroupsSequence=None, PerFrameFunctionalGroupsSequence=Sequence(each)) == ["L"]


def test_frames_of_two_eyes_are_two_volumes(tmp_path: Path) -> None:
    each = Sequence([laterality(eye) for eye in "RLR"])
    path = write_dicom(tmp_path / "a.dcm", STACK, PerFrameFunctionalGroupsSequence=each)
    right, left = read_volumes(str(change(path, ImageLaterality=None)))
    assert (right.eye, left.eye) == ("R", "L")
    assert (np.stack(right.slices) == STACK[[0, 2]]).all()
    assert (left.slices[0] == STACK[1]).all()


def test_what_is_no_dicom_is_refused_without_a_preamble(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"hello" * 100)
    with pytest.raises(DataError, match="is not a DICOM file"):
        read(tmp_path / "a.dcm")


def test_the_patient_of_every_kind_of_file_is_the_digest_of_the_number(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STACK)
    assert read_volumes(str(path))[0].patient == pseudonym(NUMBER)
    assert read_volumes(str(change(path, PatientID="")))[0].patient is None


def test_a_file_that_names_no_transfer_syntax_is_read_as_it_lies(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STACK)
    file = dcmread(path)
    whole, name = path.read_bytes(), file.file_meta.TransferSyntaxUID
    element = b"\x02\0\x10\0UI" + (20).to_bytes(2, "little") + str(name).encode().ljust(20, b"\0")
    assert element in whole
    path.write_bytes(
        whole.replace(element, b"\x02\0\x13\0SH" + element[6:8] + b"some other element".ljust(20))
    )
    assert (read(path) == STACK).all()
