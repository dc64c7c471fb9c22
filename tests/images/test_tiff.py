"""TIFF of any depth and layout is read as it is meant, or refused by name."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile

from retfound_dist.errors import ImageError
from retfound_dist.images.decoding import decode, decode_grey
from retfound_dist.images.tiff import is_tiff
from tests.images.image_makers import rgb, scan, tiff

PIXELS = scan()
STACK = np.stack([scan(n) for n in range(3)])


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_reach_from_black_to_white(bits: int) -> None:
    levels = PIXELS >> (8 - bits)
    found = decode(tiff(levels, bitspersample=bits))
    assert (found == np.round(levels * (255 / (2**bits - 1)))).all()


def test_a_jpeg_inside_a_tiff_is_refused_when_it_is_cut() -> None:
    whole = tiff(rgb(PIXELS), photometric="rgb", compression="jpeg", compressionargs={"level": 95})
    assert np.corrcoef(decode_grey(whole).ravel(), PIXELS.ravel())[0, 1] > 0.99
    with pytest.raises(ImageError, match="truncated"):
        decode(whole[: len(whole) - 300])


def test_a_tiff_of_an_older_library_with_a_stack_in_one_directory_counts_its_pages() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, imagej=True) as writer:
        writer.write(STACK, metadata={"axes": "TYX"})
    with pytest.raises(ImageError, match="holds 3 pages"):
        decode(buffer.getvalue())


def test_a_tiff_whose_directories_run_in_a_circle_ends() -> None:
    data = bytearray(tiff(PIXELS, metadata=None))
    first = int.from_bytes(data[4:8], "little")
    tags = int.from_bytes(data[first : first + 2], "little")
    at = first + 2 + 12 * tags
    data[at : at + 4] = data[4:8]
    with pytest.raises(ImageError, match=r"form a loop|holds"):
        decode(bytes(data))


@pytest.mark.parametrize("value", [1e300, -1e300, np.inf])
def test_numbers_that_no_picture_has_are_refused_without_a_warning(value: float) -> None:
    pixels = PIXELS.astype(np.float64)
    pixels[3, 3] = value
    with pytest.raises(ImageError, match="not finite"):
        decode(tiff(pixels))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_and_bigtiff_are_known_by_their_first_bytes(big: bool, order: str) -> None:
    data = tiff(PIXELS.astype(np.uint16), bigtiff=big, byteorder=order)
    assert is_tiff(data)
    assert not is_tiff(data[1:])
    assert not is_tiff(b"II")


def test_white_at_zero_is_inverted_within_the_bits_in_use() -> None:
    """A 12-bit scan in 16-bit samples: about 65,535 all of it would be white."""
    deep = PIXELS.astype(np.uint16) * 16
    assert np.abs(decode(tiff(4095 - deep, photometric="miniswhite")).astype(int) - PIXELS).max() <= 1


def test_a_strip_that_is_left_out_is_refused_though_codecs_would_fill_it() -> None:
    """A byte count of 0 stands for a strip without data: tifffile gives zeros for it."""
    data = bytearray(tiff(PIXELS, rowsperstrip=8, metadata=None))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        tag = file.pages[0].tags["StripByteCounts"]
        size = tag.valuebytecount // tag.count
        data[tag.valueoffset : tag.valueoffset + size] = bytes(size)
        assert len(file.pages[0].dataoffsets) == 6
    with pytest.raises(ImageError, match="truncated or incomplete"):
        decode(bytes(data))


def test_a_palette_that_is_too_short_for_its_pixels_is_refused() -> None:
    colours = np.random.default_rng(0).integers(0, 65536, (3, 256), dtype=np.uint16)
    data = bytearray(tiff(PIXELS, photometric="palette", colormap=colours, metadata=None))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        count_at = file.pages[0].tags["ColorMap"].offset + 4
    data[count_at : count_at + 4] = (3 * 16).to_bytes(4, "little")
    with pytest.raises(ImageError, match="palette does not fit its pixels"):
        decode(bytes(data))
