"""Topcon .fda and .fds, as UOCTE and oct-converter describe them: 15 bytes, then named chunks.

    length of the name (1 byte; 0: the end), name, bytes of the content (4), content

    @IMG_JPEG           mode, 2 unknown, width, height, number, unknown; then bytes and JPEG (2000) of each
    @IMG_SCAN_03        mode, width, height, bits, number, format, bytes; then (number, height, width)
    @IMG_MOT_COMP_03    the same, corrected for motion; UOCTE saw 16 more bytes before the pixels
    @PATIENT_INFO_02    the patient's number in 32 bytes; names, birth date
    @CAPTURE_INFO_02    the eye in its first byte: 0 right, 1 left (also @CAPTURE_INFO)

It is not read with oct-converter, which refuses a whole file for an umlaut in a name or a missing date.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping

import numpy as np

from retfound_dist.errors import DataError
from retfound_dist.images.jpeg import is_jpeg
from retfound_dist.images.raster import deep_jpeg2000
from shards.images.preparation import decode
from shards.images.scan import Pixels
from shards.sources.devices.volume import Image8, Volume, check_pixels, pseudonym, scale_slices

_JPEGS = struct.Struct("<9xIII4x")
_RAW = struct.Struct("<BIIIIBI")
_FILE_HEADER_BYTES = 15
"""Bytes before the first chunk."""
_LONGER = 16
"""Additional bytes before the pixels in UOCTE's layout."""
_EYES = {0: "R", 1: "L"}


def read_topcon(path: str) -> list[Volume]:
    """Reads the file's volume: its JPEGs if it has them, else its raw pixels."""
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        chunks = _chunks(data)
        slices = _read_slices(chunks)
    number = chunks.get("@PATIENT_INFO_02", b"")[:32].split(b"\0")[0]
    capture = chunks.get("@CAPTURE_INFO_02") or chunks.get("@CAPTURE_INFO") or b"\xff"
    return [Volume(slices, pseudonym(number.decode("latin-1")), _EYES.get(capture[0]))]


def _chunks(data: mmap.mmap) -> dict[str, bytes]:
    """Returns name -> content of the chunks with B-scans, patient and eye: the first chunk of each name.

    DataError if the file ends inside a chunk. The module's docstring has the layout.
    """
    if data[:4] != b"FOCT":
        raise DataError("is not a Topcon file (it does not begin with FOCT)")
    at, contents = _FILE_HEADER_BYTES, dict[str, bytes]()
    # The byte at `at` is the length of the next chunk's name; 0 ends the list of chunks.
    while at < len(data) and data[at]:
        name = data[at + 1 : at + 1 + data[at]].decode("latin-1")
        at += 1 + data[at]
        size, at = int.from_bytes(data[at : at + 4], "little"), at + 4
        if at + size > len(data):
            raise DataError(f"is cut short in its chunk {name[:20]!a}")
        # Only these are copied, because a file may have 4 GB.
        if name.startswith(("@IMG_JPEG", "@IMG_SCAN_03", "@IMG_MOT_COMP_03", "@PATIENT_INFO", "@CAPTURE")):
            contents.setdefault(name, data[at : at + size])
        at += size
    return contents


def _read_slices(chunks: Mapping[str, bytes]) -> list[Image8]:
    """Returns the B-scans as 8-bit pixels, from the first kind of chunk that holds them."""
    if "@IMG_JPEG" in chunks:
        return scale_slices(_decode_jpegs(chunks["@IMG_JPEG"]))
    for name in ("@IMG_SCAN_03", "@IMG_MOT_COMP_03"):
        if name in chunks:
            return scale_slices(_raw(chunks[name], name))
    raise DataError("has no readable B-scans (@IMG_JPEG, @IMG_SCAN_03 or @IMG_MOT_COMP_03)")


def _decode_jpegs(content: bytes) -> list[Pixels]:
    """Returns the images of a chunk of JPEG files, each with its size before it."""
    width, height, count = _JPEGS.unpack_from(content)
    check_pixels(width, height, count)
    slices, at = [], _JPEGS.size
    for place in range(count):
        size = int.from_bytes(content[at : at + 4], "little")
        data, at = content[at + 4 : at + 4 + size], at + 4 + size
        if not size or len(data) < size:
            raise DataError(f"is cut short: it holds {place} of {count} B-scans")
        slices.append(_picture(data, width, height))
    return slices


def _picture(data: bytes, width: int, height: int) -> Pixels:
    """Returns the grey pixels of a JPEG or JPEG 2000; DataError if its size differs from the header."""
    pixels: Pixels = decode(data) if is_jpeg(data) else deep_jpeg2000(data)
    shape = pixels.shape
    if shape != (height, width):
        raise DataError(f"has a picture of {shape[1]}x{shape[0]}, not a grey one of {width}x{height}")
    return pixels


def _raw(content: bytes, name: str) -> Pixels:
    """Returns (number, height, width) pixels of 8 or 16 bits."""
    _, width, height, bits, count, _, size = _RAW.unpack_from(content)
    if bits not in (8, 16):
        raise DataError(f"has pixels of {bits} bits in {name}, not 8 or 16")
    check_pixels(width, height, count)
    needed = width * height * count * bits // 8
    begin = _RAW.size
    # There are two layouts: the longer one repeats the number of bytes right before the pixels.
    if size != needed and content[begin + _LONGER - 4 : begin + _LONGER] == needed.to_bytes(4, "little"):
        begin += _LONGER
    if len(content) < begin + needed:
        raise DataError(f"is cut short: {name} says that there are {count} B-scans of {width}x{height}")
    pixels = np.frombuffer(content, f"<u{bits // 8}", width * height * count, begin)
    return pixels.reshape(count, height, width)
