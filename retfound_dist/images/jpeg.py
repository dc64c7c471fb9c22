"""JPEG at the level of its bytes: what is in the header, and the same picture without its metadata."""

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
"""0xFF that is neither followed by a stuffed byte nor a restart marker: no compressed data."""


def is_jpeg(data: bytes) -> bool:
    """Whether these bytes begin as a JPEG does."""
    return data[:3] == b"\xff\xd8\xff"


def header(data: bytes) -> tuple[int, int, str]:
    """(height, width, colour space) of a JPEG; ImageError when it is broken."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=True)
    except ValueError as error:
        raise _fault(data, error) from error
    return int(height), int(width), str(colours)


def decode(data: bytes, colours: str) -> NDArray[np.uint8]:
    """Pixels as (H, W, 1) for `GRAY` or (H, W, 3) for `RGB`.

    Strict: a JPEG that is cut short or holds zeroed bytes raises ImageError, where most decoders
    would fill the gap with grey.
    """
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colours, strict=True)
    except ValueError as error:
        raise _fault(data, error) from error
    return pixels


def _fault(data: bytes, error: Exception) -> ImageError:
    """What is wrong with a JPEG that the decoder refuses."""
    depth = bits(data)
    if depth > 8:
        return ImageError(f"is a JPEG of {depth} bit: save it as 16-bit PNG or TIFF")
    return ImageError(f"is a broken JPEG ({error})")


def bits(data: bytes) -> int:
    """Bits of a sample by the frame header, 0 where there is none."""
    at = 2
    while at + 5 <= len(data) and data[at] == 0xFF and data[at + 1] not in (SOS, EOI):
        if 0xC0 <= data[at + 1] <= 0xCF and data[at + 1] not in (0xC4, 0xC8, 0xCC):
            return data[at + 4]
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return 0


def encode(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """(H, W) or (H, W, 3) uint8 as a JPEG without chroma subsampling."""
    if pixels.ndim == 2:
        grey = np.ascontiguousarray(pixels[..., None])
        return bytes(simplejpeg.encode_jpeg(grey, quality, "GRAY", "Gray"))
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "444"))


def orientation(data: bytes) -> int:
    """EXIF orientation, 1 (upright) where the file does not say."""
    if data.find(b"Exif\0", 0, _end_of_head(data)) < 0:
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return int(image.getexif().get(ORIENTATION, 1) or 1)
    except Exception:  # damaged EXIF data say nothing, as to every viewer; the picture itself is sound
        return 1


def without_metadata(data: bytes) -> bytes:
    """The same compressed picture without APP1-15, comments, thumbnails and anything after its end.

    EXIF, XMP and comments can name a patient. Nothing is decoded; the pixels stay what they were.
    """
    kept, position = [data[:2]], 2
    while position < len(data):
        marker, start = _next_marker(data, position)
        if marker == EOI:
            return b"".join([*kept, b"\xff\xd9"])
        end = start + int.from_bytes(data[start : start + 2], "big")
        if end > len(data) or end < start + 2:
            break
        if marker == SOS:
            end = _end_of_scan(data, end)
        if _is_picture(marker, data[start + 2 : start + 7]):
            kept.append(b"\xff" + bytes([marker]) + data[start:end])
        position = end
    raise ImageError("is a broken JPEG (no end marker)")


def _next_marker(data: bytes, position: int) -> tuple[int, int]:
    """(marker, offset after it) at a place where a marker must stand."""
    if data[position] != 0xFF:
        raise ImageError("is a broken JPEG (a segment has a wrong length)")
    while position < len(data) and data[position] == 0xFF:
        position += 1
    if position == len(data):
        raise ImageError("is a broken JPEG (no end marker)")
    return data[position], position + 1


def _end_of_head(data: bytes) -> int:
    """Where compressed data begin; of a broken file its end."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != SOS:
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    whole = position + 4 <= len(data) and data[position] == 0xFF
    return position if whole else len(data)


def _end_of_scan(data: bytes, position: int) -> int:
    """Where the next marker after compressed data stands."""
    found = _AFTER_SCAN.search(data, position)
    return found.start() if found else len(data)


def _is_picture(marker: int, head: bytes) -> bool:
    """Whether a segment belongs to the picture: all but APPn and COM, and the plain JFIF header."""
    if marker == APP0:
        return head == b"JFIF\0"
    return not (APP0 < marker <= 0xEF or marker == COM)
