"""JPEG bytes: the header, strict decoding, and the same picture without its metadata."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from retfound_dist.errors import ImageError
from retfound_dist.images import jpeg
from tests.images.image_makers import channels, exif, rgb, saved, scan, tiff

PIXELS = scan()
NAME = b"DOE^JANE 1950-01-01"


def named(pixels: np.ndarray, **options: object) -> bytes:
    """A JPEG that names a patient in EXIF, in XMP, in a comment and behind its end."""
    tags = exif(6)
    tags[0x010E] = NAME.decode()
    xmp = b"<x:xmpmeta>" + NAME + b"</x:xmpmeta>"
    return saved(pixels, "JPEG", quality=90, exif=tags, xmp=xmp, comment=NAME, **options) + NAME


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"restart_marker_rows": 1}, {"optimize": True}],
    ids=str,
)
@pytest.mark.parametrize("colour", [False, True])
def test_metadata_go_and_every_pixel_stays(options: dict[str, object], colour: bool) -> None:
    pixels = channels(PIXELS, PIXELS // 2, 255 - PIXELS) if colour else PIXELS
    data = named(pixels, **options)
    assert data.count(NAME) == 4
    bare = jpeg.strip_metadata(data)
    assert NAME not in bare
    assert jpeg.orientation(bare) == 1
    space = "RGB" if colour else "GRAY"
    assert (jpeg.decode(bare, space) == jpeg.decode(data, space)).all()
    assert jpeg.strip_metadata(bare) == bare


@pytest.mark.parametrize("keep", [3, 30, 400, -2])
def test_metadata_of_a_jpeg_without_its_end_cannot_be_taken_off(keep: int) -> None:
    data = saved(PIXELS, "JPEG", quality=90)
    with pytest.raises(ImageError, match=r"is a broken JPEG \(.+\)"):
        jpeg.strip_metadata(data[:keep])


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_orientation_is_the_one_that_the_file_says(turn: int) -> None:
    assert jpeg.orientation(saved(PIXELS, "JPEG", exif=exif(turn))) == turn


def test_a_file_without_or_with_damaged_exif_is_upright() -> None:
    assert jpeg.orientation(saved(PIXELS, "JPEG")) == 1
    data = saved(PIXELS, "JPEG", exif=exif(6))
    at = data.index(b"Exif\0\0") + 6
    assert jpeg.orientation(data[:at] + bytes(8) + data[at + 8 :]) == 1
    assert jpeg.orientation(b"\xff\xd8\xff") == 1


def test_the_header_tells_size_and_colour_space() -> None:
    assert jpeg.header(saved(PIXELS, "JPEG")) == (48, 64, "Gray")
    assert jpeg.header(saved(rgb(PIXELS), "JPEG")) == (48, 64, "YCbCr")
    assert jpeg.header(saved(Image.fromarray(PIXELS).convert("CMYK"), "JPEG"))[2] in ("CMYK", "YCCK")
    with pytest.raises(ImageError, match="is a broken JPEG"):
        jpeg.header(b"\xff\xd8\xff\xe0")


@pytest.mark.parametrize("depth", [8, 12, 16])
def test_the_depth_stands_in_the_frame_header(depth: int) -> None:
    """12 and 16 bit are refused by it: no right way leads from them to the 8 bits that are decoded."""
    deep = PIXELS if depth == 8 else PIXELS.astype(np.uint16) * 16
    data = bytes(imagecodecs.jpeg8_encode(deep, bitspersample=depth, lossless=depth == 16))
    assert jpeg.bits_per_sample(data) == depth
    assert jpeg.bits_per_sample(data[:2]) == 0
    if depth > 8:
        with pytest.raises(ImageError, match=f"is a JPEG of {depth} bit: save it as 16-bit PNG or TIFF"):
            jpeg.decode(data, "GRAY")


def test_a_jpeg_that_is_cut_or_holds_zeros_is_refused_though_pillow_fills_the_gap() -> None:
    data = saved(scan(0, 200, 240), "JPEG", quality=90)
    middle = len(data) // 2
    for damaged in (data[:middle], data[:middle] + bytes(200) + data[middle + 200 :]):
        with pytest.raises(ImageError, match="is a broken JPEG"):
            jpeg.decode(damaged, "GRAY")


def test_what_is_encoded_has_its_chroma_at_full_size() -> None:
    """Fine colour would be blurred by the usual 4:2:0."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = (255, 0, 0)
    stripes[:, 1::2] = (0, 0, 255)
    data = jpeg.encode(stripes, 95)
    assert np.abs(jpeg.decode(data, "RGB").astype(int) - stripes).mean() < 8
    assert jpeg.header(jpeg.encode(PIXELS, 95)) == (48, 64, "Gray")


def test_only_the_first_bytes_make_a_jpeg() -> None:
    assert jpeg.is_jpeg(saved(PIXELS, "JPEG"))
    assert not any(jpeg.is_jpeg(data) for data in (b"", b"\xff\xd8", saved(PIXELS, "PNG"), tiff(PIXELS)))
