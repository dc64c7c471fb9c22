"""PNG, WebP, JPEG 2000, PGM and their like are read in their own depth, or refused by name."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from retfound_dist.errors import ImageError
from retfound_dist.images import raster
from tests.images.image_makers import channels, deep_png, rgb, saved, scan

PIXELS = scan()


def test_an_interlaced_png_is_whole() -> None:
    import struct
    import zlib

    raw = b""
    for top, left, down, right in (
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
    ):  # fmt: skip
        raw += b"".join(b"\0" + row.tobytes() for row in PIXELS[top::down, left::right])

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", PIXELS.shape[1], PIXELS.shape[0], 8, 0, 0, 0, 1)
    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )
    assert (raster.decode(data) == PIXELS).all()


def test_16_bit_colour_is_not_cut_to_its_upper_byte() -> None:
    """Pillow keeps the upper byte alone: a picture in the lower one would be black."""
    dark = rgb(PIXELS.astype(np.uint16))
    found = raster.decode(deep_png(dark))
    assert np.abs(found.astype(int) - rgb(PIXELS)).max() <= 1


def test_a_jpeg_2000_keeps_the_depth_it_is_stored_in() -> None:
    deep = PIXELS.astype(np.uint16) * 16 + 7
    data = bytes(imagecodecs.jpeg2k_encode(deep, level=0, reversible=True))
    assert (raster.deep_jpeg2000(data) == deep).all()
    with pytest.raises(ImageError, match="is a JPEG 2000 image that cannot be read"):
        raster.deep_jpeg2000(data[:60])


@pytest.mark.parametrize("head", [b"P5 64 48 255\n", b"P5\n# by hand\n64\n# more\n48\n255\n"])
def test_comments_in_a_pgm_change_nothing_and_a_second_picture_is_refused(head: bytes) -> None:
    data = head + PIXELS.tobytes()
    assert (raster.decode(data) == PIXELS).all()
    with pytest.raises(ImageError, match="holds several pages"):
        raster.decode(data + b"\n" + data)


def test_alpha_of_every_mode_leaves_black() -> None:
    clear = np.full_like(PIXELS, 255)
    clear[:, :10] = 0
    for pixels in (channels(PIXELS, clear), channels(PIXELS, PIXELS, PIXELS, clear)):
        found = raster.decode(saved(pixels, "PNG"))
        assert not found[:, :10].any()
        assert (found[:, 10:] == rgb(PIXELS)[:, 10:]).all()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"%PDF-1.7", "is a PDF: export the images from it"),
        (b"PK\3\4" + bytes(20), "is a zip archive: unpack it"),
        (b"8BPS" + bytes(20), "is a Photoshop file"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (b"  \n<!DOCTYPE html>", "is a web page or XML, not an image: download it again"),
        (bytes(128) + b"DICM", 'is a DICOM file: pack it with source.kind="device"'),
    ],
)
def test_a_file_of_another_kind_is_named(data: bytes, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        raster.decode(data)
