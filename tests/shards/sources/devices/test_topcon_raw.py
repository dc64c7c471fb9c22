"""Topcon .fda and .fds: pixels of every kind of chunk, patient, eye, and files that are cut short."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.errors import DataError
from shards.sources.devices.volume import pseudonym
from shards.sources.devices.volume_formats import read_volumes
from tests.shards.device_files import NUMBER, scan_stack, write_topcon

PERSON = pseudonym(NUMBER)


@pytest.mark.parametrize("chunk", ["@IMG_SCAN_03", "@IMG_MOT_COMP_03", "@IMG_JPEG"])
@pytest.mark.parametrize("end", [".fds", ".fda"])
def test_topcon_pixels_patient_and_eye(tmp_path: Path, chunk: str, end: str) -> None:
    stack = scan_stack(3).astype(np.uint16) * 200
    stack[0] //= 4
    path = write_topcon(tmp_path / f"a{end}", chunk, stack, eye=0)
    (volume,) = read_volumes(str(path))
    wanted = np.clip(stack * (255 / np.percentile(stack, 99.9)), 0, 255)
    assert np.abs(np.stack(volume.slices) - wanted).max() <= 0.51
    assert (volume.eye, volume.patient) == ("R", PERSON)


def test_topcon_8_bit_pictures_keep_their_levels(tmp_path: Path) -> None:
    (volume,) = read_volumes(str(write_topcon(tmp_path / "a.fda", "@IMG_JPEG", scan_stack(2))))
    assert (np.stack(volume.slices) == scan_stack(2)).all()


def test_topcon_pixels_are_found_behind_the_longer_header_too(tmp_path: Path) -> None:
    stack = scan_stack(3).astype(np.uint16)
    found = []
    for longer in (False, True):
        path = write_topcon(tmp_path / "a.fda", "@IMG_MOT_COMP_03", stack, longer=longer)
        found.append(np.stack(read_volumes(str(path))[0].slices))
    assert (found[0] == found[1]).all()


@pytest.mark.parametrize("lost", [1, 1_000, 3_000])
def test_a_topcon_file_that_is_cut_short_is_an_error(tmp_path: Path, lost: int) -> None:
    path = write_topcon(tmp_path / "a.fda", "@IMG_JPEG", scan_stack(3).astype(np.uint16))
    path.write_bytes(path.read_bytes()[: -lost - 1])
    with pytest.raises(DataError, match="cut short"):
        read_volumes(str(path))


def test_a_picture_in_a_topcon_chunk_may_not_be_larger_than_it_says(tmp_path: Path) -> None:
    path = write_topcon(tmp_path / "a.fda", "@IMG_JPEG", scan_stack(2))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(struct.pack("<II", 64, 48), struct.pack("<II", 64, 40), 1))
    with pytest.raises(DataError, match="has a picture of 64x48"):
        read_volumes(str(path))
    assert Image.MAX_IMAGE_PIXELS
