"""Compressed DICOM: every usual transfer syntax decodes, and one that does not is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, uid

from retfound_dist.errors import DataError
from tests.shards.device_files import write_dicom
from tests.shards.dicom_makers import DEEP, STACK, compressed, jpeg_frames, read, scaled_like, streams

SYNTAXES = [
    (uid.JPEGExtended12Bit, "extended", 12),
    (uid.JPEGLossless, "lossless", 8),
    (uid.JPEGLosslessSV1, "lossless", 8),
    (uid.JPEGLosslessSV1, "lossless", 16),
    (uid.JPEGLSLossless, "ls", 8),
    (uid.JPEGLSLossless, "ls", 16),
    (uid.JPEG2000Lossless, "j2k", 8),
    (uid.JPEG2000Lossless, "j2k", 16),
]


@pytest.mark.parametrize(("syntax", "kind", "bits"), SYNTAXES)
def test_every_usual_compression_decodes_in_a_plain_install(
    tmp_path: Path, syntax: str, kind: str, bits: int
) -> None:
    stack = STACK if bits == 8 else DEEP * 2 ** (bits - 8)
    path = write_dicom(tmp_path / "a.dcm", stack, BitsStored=bits, HighBit=bits - 1)
    compressed(path, syntax, streams(stack, kind))
    wanted = STACK if bits == 8 else scaled_like(stack)
    assert np.abs(read(path).astype(float) - wanted).max() <= (6 if kind == "extended" else 1)


def test_rle_deflated_and_jpeg_of_8_bit_decode_too(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STACK)
    file = dcmread(path)
    file.compress(uid.RLELossless, encoding_plugin="pydicom")
    file.save_as(tmp_path / "rle.dcm")
    assert (read(tmp_path / "rle.dcm") == STACK).all()
    file = dcmread(path)
    file.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    file.save_as(tmp_path / "deflated.dcm")
    assert (read(tmp_path / "deflated.dcm") == STACK).all()
    compressed(path, uid.JPEGBaseline8Bit, jpeg_frames(STACK))
    assert np.corrcoef(read(path).ravel(), STACK.ravel())[0, 1] > 0.99


def test_a_compression_that_is_not_read_is_named(tmp_path: Path) -> None:
    path = compressed(write_dicom(tmp_path / "a.dcm", STACK), uid.MPEG2MPML, [b"\0\0\1\xb3" * 9])
    with pytest.raises(DataError, match=r"compressed as MPEG2 .*convert it"):
        read(path)


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_compressed_colour_is_rgb(tmp_path: Path, syntax: str) -> None:
    shown = np.stack([STACK, STACK // 2, 255 - STACK], axis=-1)
    path = write_dicom(tmp_path / "a.dcm", shown, SamplesPerPixel=3, PlanarConfiguration=0)
    kind = {uid.JPEGLosslessSV1: "lossless", uid.JPEGLSLossless: "ls", uid.JPEG2000Lossless: "j2k"}[syntax]
    colours = "YBR_RCT" if kind == "j2k" else "RGB"
    compressed(path, syntax, streams(shown, kind), PhotometricInterpretation=colours)
    assert (read(path) == shown).all()
