"""Pixel data of DICOM: never a negative, padding dark, and as many whole frames as promised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread, uid

from retfound_dist.errors import DataError
from tests.shards.device_files import scan_stack, write_dicom
from tests.shards.dicom_makers import DEEP, STACK, change, compressed, jpeg_frames, read, scaled_like, streams


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_monochrome1_shows_the_scan_and_not_its_negative(tmp_path: Path, bits: int) -> None:
    deep = STACK if bits == 8 else DEEP * 2 ** (bits - 8)
    white = (2**bits - 1 - deep).astype(deep.dtype)
    path = write_dicom(tmp_path / "a.dcm", white, PhotometricInterpretation="MONOCHROME1")
    change(path, BitsStored=bits, HighBit=bits - 1)
    wanted = STACK if bits == 8 else scaled_like(deep)
    assert np.abs(read(path).astype(float) - wanted).max() <= 1


def test_signed_pixels_are_right_both_ways_round(tmp_path: Path) -> None:
    signed = (DEEP * 100 - 12000).astype(np.int16)
    for pixels, kind in ((signed, "MONOCHROME2"), (-1 - signed, "MONOCHROME1")):
        path = write_dicom(tmp_path / "a.dcm", pixels, PixelRepresentation=1, PhotometricInterpretation=kind)
        assert np.corrcoef(read(path).ravel(), STACK.ravel())[0, 1] > 0.999


def test_floating_point_pixels_are_read(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STACK)
    pixels = (STACK.astype("<f4") / 255).tobytes()
    change(path, BitsAllocated=32, FloatPixelData=pixels, PixelData=None, BitsStored=None, HighBit=None)
    assert np.abs(read(path).astype(float) - scaled_like(STACK)).max() <= 1


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("colours", ["RGB", "YBR_FULL"])
def test_colour_is_rgb_in_either_planar_configuration(tmp_path: Path, planar: int, colours: str) -> None:
    shown = np.stack([STACK, STACK // 2, 255 - STACK], axis=-1)
    held = (
        shown
        if colours == "RGB"
        else np.stack([np.asarray(Image.fromarray(f).convert("YCbCr")) for f in shown])
    )
    stored = np.moveaxis(held, -1, 1) if planar else held
    path = write_dicom(tmp_path / "a.dcm", np.ascontiguousarray(held), SamplesPerPixel=3)
    change(
        path, PhotometricInterpretation=colours, PlanarConfiguration=planar,
        PixelData=np.ascontiguousarray(stored).tobytes(),
    )  # fmt: skip
    assert np.abs(read(path).astype(int) - shown).max() <= 3


@pytest.mark.parametrize("bits", [8, 16])
def test_palette_colour_goes_through_its_table(tmp_path: Path, bits: int) -> None:
    table = np.random.default_rng(0).permutation(256).astype(np.uint8)
    stored = np.argsort(table).astype(np.uint8)[STACK]  # the table undoes this
    path = write_dicom(tmp_path / "a.dcm", stored, PhotometricInterpretation="PALETTE COLOR")
    entries = table.astype(np.uint16) * 257 if bits == 16 else table
    for colour in ("Red", "Green", "Blue"):
        file = dcmread(path)
        file.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, bits])
        file.add_new(f"{colour}PaletteColorLookupTableData", "OW", entries.tobytes())
        file.save_as(path)
    assert (read(path) == STACK).all()


def test_a_negative_rescale_slope_turns_the_picture_over(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", 255 - STACK, RescaleSlope=-1, RescaleIntercept=255)
    assert (read(path) == STACK).all()


def test_padding_is_dark_whatever_its_value(tmp_path: Path) -> None:
    padded = (DEEP * 16).astype(np.int16)
    padded[:, :, :8] = -32000
    path = write_dicom(tmp_path / "a.dcm", padded, PixelRepresentation=1)
    file = dcmread(path)
    file.add_new("PixelPaddingValue", "SS", -32000)
    file.save_as(path)
    found = read(path)
    assert found[:, :, :8].max() <= found[:, :, 8:].min() + 1
    assert np.corrcoef(found[:, :, 8:].ravel(), STACK[:, :, 8:].ravel())[0, 1] > 0.999
    assert np.percentile(found[:, :, 8:], 1) < 10  # the padding takes no part of the 256 levels
    assert found.max() == 255


def test_pixels_of_one_bit_are_refused_as_a_mask(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.packbits(STACK > 90, axis=-1))
    change(path, BitsAllocated=1, BitsStored=1, HighBit=0, Columns=64)
    with pytest.raises(DataError, match="1 bit, so it is a mask"):
        read(path)


def test_monochrome1_is_inverted_in_compressed_files_too(tmp_path: Path) -> None:
    white = 4095 - DEEP * 16
    path = write_dicom(
        tmp_path / "a.dcm", white, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11
    )
    compressed(path, uid.JPEGLSLossless, streams(white, "ls"))
    assert np.abs(read(path).astype(float) - scaled_like(DEEP * 16)).max() <= 1


@pytest.mark.parametrize("kept", [2, 4])
def test_pixel_data_of_fewer_or_more_frames_than_promised_are_refused(tmp_path: Path, kept: int) -> None:
    path = write_dicom(tmp_path / "a.dcm", scan_stack(kept), NumberOfFrames=3)
    with pytest.raises(DataError, match=f"{kept} frames of 64x48, but NumberOfFrames is 3"):
        read(path)
    path = write_dicom(tmp_path / "b.dcm", scan_stack(kept), NumberOfFrames=3)
    compressed(path, uid.JPEGBaseline8Bit, jpeg_frames(scan_stack(kept)))
    with pytest.raises(DataError, match=f"holds {kept} compressed frames, but NumberOfFrames is 3"):
        read(path)


def test_half_a_frame_and_a_frame_cut_short_are_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STACK)
    change(path, PixelData=STACK.tobytes()[: STACK.nbytes // 2])
    with pytest.raises(DataError, match=r"1\.5 frames"):
        read(path)
    frames = jpeg_frames(STACK)
    for syntax, broken in (
        (uid.JPEGBaseline8Bit, frames[1][:-300] + b"\xff\xd9"),  # Pillow fills the gap with grey
        (uid.JPEGBaseline8Bit, frames[1][:-300]),
        (uid.JPEGLSLossless, streams(STACK, "ls")[1][:-300]),
    ):
        good = frames if syntax == uid.JPEGBaseline8Bit else streams(STACK, "ls")
        path = compressed(write_dicom(tmp_path / "b.dcm", STACK), syntax, [good[0], broken, good[2]])
        with pytest.raises(DataError, match=r"frame .*2 of 3"):
            read(path)
