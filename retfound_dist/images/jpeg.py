"""Reads, writes and checks JPEG files, and removes their metadata without decoding the picture.

Segments and markers follow ITU-T T.81, annex B.
"""

from __future__ import annotations

import io
import re

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from retfound_dist.errors import ImageError

SOI, EOI, SOS, APP0, COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xFE
ORIENTATION = 0x0112
"""EXIF tag: 1 upright, 2-8 turned or mirrored."""
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]", re.DOTALL)
"""The first marker after compressed data: 0xFF that is followed by neither a stuffed 0 nor a restart
marker."""


def is_jpeg(data: bytes) -> bool:
    """Whether these bytes begin as a JPEG does."""
    return data[:3] == b"\xff\xd8\xff"


def header(data: bytes) -> tuple[int, int, str]:
    """(height, width, colour space) of a JPEG; ImageError where it is broken."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=True)
    except ValueError as error:
        raise _decode_error(data, error) from error
    return int(height), int(width), str(colours)


def decode(data: bytes, colours: str) -> NDArray[np.uint8]:
    """Pixels as (H, W, 1) for `GRAY` or (H, W, 3) for `RGB`.

    Strict: a JPEG that is cut short or holds zeroed bytes raises ImageError, where most decoders
    would fill the gap with grey.
    """
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colours, strict=True)
    except ValueError as error:
        raise _decode_error(data, error) from error
    return pixels


def _decode_error(data: bytes, error: Exception) -> ImageError:
    """The error for a JPEG that the decoder refuses."""
    # simplejpeg refuses sound files of 12 and 16 bit with a message about damage.
    depth = bits_per_sample(data)
    if depth > 8:
        return ImageError(f"is a JPEG of {depth} bit: save it as 16-bit PNG or TIFF")
    return ImageError(f"is a broken JPEG ({error})")


def bits_per_sample(data: bytes) -> int:
    """Bits of one colour value of a pixel, from the frame header; 0 where there is no frame header."""
    position = 2  # after SOI
    # C0 to CF are the frame headers SOF0 to SOF15, except C4 (Huffman tables), C8 (reserved) and CC
    # (arithmetic coding).
    while position + 5 <= len(data) and data[position] == 0xFF and data[position + 1] not in (SOS, EOI):
        if 0xC0 <= data[position + 1] <= 0xCF and data[position + 1] not in (0xC4, 0xC8, 0xCC):
            return data[position + 4]
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return 0


def encode(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """Encode (H, W) or (H, W, 3) uint8 as a JPEG. Colour is not subsampled."""
    if pixels.ndim == 2:
        grey = np.ascontiguousarray(pixels[..., None])
        return bytes(simplejpeg.encode_jpeg(grey, quality, "GRAY", "Gray"))
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "444"))


def orientation(data: bytes) -> int:
    """EXIF orientation; 1 (upright) where the file has none."""
    # A search before Pillow opens the file: this runs for every image, and most have no EXIF.
    if data.find(b"Exif\0", 0, _end_of_head(data)) < 0:
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return int(image.getexif().get(ORIENTATION, 1) or 1)
    except Exception:
        # Damaged EXIF data are ignored, as viewers do: the picture itself is sound.
        return 1


def strip_metadata(data: bytes) -> bytes:
    """The same compressed picture without APP1-15, comments, thumbnails and anything after its end.

    The pixels do not change, for nothing is decoded.
    """
    # EXIF, XMP and comments can name a patient, and so can a preview. Only segments known to belong to the
    # picture are copied, so that a kind of metadata nobody has thought of is left out too.
    segments, position = [data[:2]], 2
    while position < len(data):
        marker, start = _next_marker(data, position)
        if marker == EOI:
            return b"".join([*segments, b"\xff\xd9"])
        end = start + int.from_bytes(data[start : start + 2], "big")
        if end > len(data) or end < start + 2:
            break
        if marker == SOS:
            end = _end_of_scan(data, end)
        if _is_picture(marker, data[start + 2 : start + 7]):
            segments.append(b"\xff" + bytes([marker]) + data[start:end])
        position = end
    raise ImageError("is a broken JPEG (no end marker)")


def _next_marker(data: bytes, position: int) -> tuple[int, int]:
    """(marker, offset after it) at an offset where a marker must be."""
    if data[position] != 0xFF:
        raise ImageError("is a broken JPEG (a segment has a wrong length)")
    # Any number of 0xFF may fill the space before a marker.
    while position < len(data) and data[position] == 0xFF:
        position += 1
    if position == len(data):
        raise ImageError("is a broken JPEG (no end marker)")
    return data[position], position + 1


def _end_of_head(data: bytes) -> int:
    """The offset where compressed data begin; the end of the file where it is broken."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != SOS:
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    whole = position + 4 <= len(data) and data[position] == 0xFF
    return position if whole else len(data)


def _end_of_scan(data: bytes, position: int) -> int:
    """The offset of the next marker after compressed data."""
    match = _AFTER_SCAN.search(data, position)
    return match.start() if match else len(data)


def _is_picture(marker: int, head: bytes) -> bool:
    """Whether a segment belongs to the picture: the plain JFIF header, and everything but APPn and
    comments."""
    if marker == APP0:
        return head == b"JFIF\0"
    return not (APP0 < marker <= 0xEF or marker == COM)
