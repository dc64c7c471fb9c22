"""What a DICOM file is: its modality, its patient, the eye of each frame, its transfer syntax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from retfound_dist.errors import DataError
from shards.sources.devices.volume import pseudonym
from shards.sources.devices.volume_formats import read_volumes
from tests.shards.device_files import NUMBER, write_dicom
from tests.shards.dicom_makers import STACK, change, read


def test_missing_pixels_and_sizes_are_named(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STACK)
    with pytest.raises(DataError, match="holds no pixel data"):
        read(change(path, PixelData=None))
    with pytest.raises(DataError, match="says no Rows"):
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
    with pytest.raises(DataError, match="is no DICOM file"):
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
