"""Heidelberg .e2e, as UOCTE and LibE2E describe it: a chain of directories that name chunks.

    CMDb header (36 bytes), MDbMDir (52): where the last directory begins
    MDbDir (52) with 512 entries of 44 bytes: where each chunk begins; the place of the directory before it
    MDbData (60): ids of patient, study, series and slice (twice its number), kind; then the chunk's content

Kind 9 holds the patient, 11 and 3 the eye, 0x40000000 images: 8-bit fundus (index 0) and B-scans (1) of
unsigned 16-bit floats (6 bits of exponent, 10 of mantissa). These are reflectances as in a .vol: all values
of a real .vol have such mantissas. A file may hold several patients and eyes.

It is not read with oct-converter or eyepy, because both read the bits of the mantissa in reverse (speckle of
up to 21 levels). oct-converter also shows pixels without a measurement in white, gives all scans the last
patient, skips broken scans silently, and never ends on a directory that refers to itself.
"""

from __future__ import annotations

import mmap
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from retfound_dist.errors import DataError
from shards.sources.devices.volume import (
    Image8,
    Volume,
    check_pixels,
    eye_of,
    heidelberg_display,
    pseudonym,
)

_DIRECTORY = struct.Struct("<12s24xIIII")
_CHUNK = struct.Struct("<32x3IiH2xI4x")
_ENTRY = np.dtype(
    {"names": ["place", "start", "kind"], "formats": 3 * ["<u4"], "offsets": [0, 4, 36], "itemsize": 44}
)
_IMAGE = struct.Struct("<12xII")
_PATIENT, _EYE, _SCAN_EYE, _PICTURE = 9, 11, 3, 0x40000000
_SCAN = 1
"""Index of the pictures that are B-scans."""
_NUMBER_OFFSET, _NUMBER_BYTES = 102, 25
"""Place of the patient's number in a chunk of kind 9, after two names, birth date and sex."""
_UNMEASURED = 1.99
"""Reflectances are at most 1. A larger value marks a pixel without a measurement (eyepy)."""
Series = tuple[int, int, int]
"""The file's ids of patient, study and series."""


@dataclass(frozen=True)
class _Chunk:
    series: Series
    slice: int
    index: int
    kind: int
    content_offset: int


def read_e2e(path: str) -> list[Volume]:
    """Reads every series of B-scans, in the order of the file."""
    # Mapped, because a file may have 4 GB and only its B-scans and three small kinds of chunk are read.
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        base = 64 if data[:21] == b"E2EMultipleVolumeFile" else 0
        if data[base : base + 4] != b"CMDb":
            raise DataError("is not an .e2e file (it has no CMDb header)")
        kinds = _kinds_by_start(data, base)
        chunks = [chunk for start, kind in kinds.items() if (chunk := _read_chunk(data, base, start, kind))]
        # First for the whole file, because the chunk of an eye may come after its B-scans.
        patients, eyes = _read_patients(data, chunks), _read_eyes(data, chunks)
        return [
            Volume(slices, patients.get(series[0]) or pseudonym(series[0]), eyes.get(series))
            for series, slices in _read_pictures(data, chunks)
        ]


def _kinds_by_start(data: mmap.mmap, base: int) -> dict[int, int]:
    """Returns the start of each chunk -> its kind, from the directories, the first directory first.

    DataError if a directory is broken or refers to an earlier one.
    """
    offset = _DIRECTORY.unpack_from(data, base + 36)[2]
    directories: dict[int, int] = {}
    while offset:
        magic, count, _, previous, _ = _DIRECTORY.unpack_from(data, base + offset)
        # Without the first condition a circular chain would never end.
        if offset in directories or not magic.startswith(b"MDbDir"):
            raise DataError("has a broken directory")
        directories[offset] = count
        if sum(directories.values()) * _ENTRY.itemsize > len(data):
            raise DataError("has directories larger than the file")
        offset = previous
    kind_of_start: dict[int, int] = {}
    for offset, count in reversed(directories.items()):
        begin = base + offset + _DIRECTORY.size
        entries = np.frombuffer(data[begin : begin + count * _ENTRY.itemsize], _ENTRY, count)
        # A directory always has 512 entries, also unused ones.
        used = entries[entries["start"] > entries["place"]]
        kind_of_start.update(zip(used["start"].tolist(), used["kind"].tolist(), strict=True))
    return kind_of_start


def _read_chunk(data: mmap.mmap, base: int, start: int, kind: int) -> _Chunk | None:
    """Reads the header of a chunk. None if anonymizing has erased it; DataError if that was a picture."""
    begin = base + start
    head = data[begin : begin + _CHUNK.size]
    if len(head) < _CHUNK.size or not head.startswith(b"MDbData"):
        if kind == _PICTURE:
            raise DataError("is cut short: a picture in its directory is missing")
        return None
    patient, study, series, place, index, kind = _CHUNK.unpack(head)
    return _Chunk((patient, study, series), place // 2, index, kind, begin + _CHUNK.size)


def _read_patients(data: mmap.mmap, chunks: list[_Chunk]) -> dict[int, str | None]:
    """Returns the file's id of each patient -> digest of the patient's number."""
    patients = {}
    for chunk in chunks:
        if chunk.kind == _PATIENT:
            begin = chunk.content_offset + _NUMBER_OFFSET
            number = data[begin : begin + _NUMBER_BYTES].split(b"\0")[0]
            patients[chunk.series[0]] = pseudonym(number.decode("latin-1"))
    return patients


def _read_eyes(data: mmap.mmap, chunks: list[_Chunk]) -> dict[Series, str]:
    eyes: dict[Series, str] = {}
    # Kind 11 last, because it counts if a file has both.
    for kind, offset in ((_SCAN_EYE, 4), (_EYE, 14)):
        for chunk in chunks:
            begin = chunk.content_offset + offset
            if chunk.kind == kind and (eye := eye_of(data[begin : begin + 1].decode("latin-1"))):
                eyes[chunk.series] = eye
    return eyes


def _read_pictures(data: mmap.mmap, chunks: list[_Chunk]) -> Iterator[tuple[Series, list[Image8]]]:
    """Yields the B-scans of each series by number of the slice; DataError if one is not complete."""
    chunks_of_series: dict[Series, list[_Chunk]] = defaultdict(list)
    for chunk in chunks:
        if chunk.kind == _PICTURE and chunk.index == _SCAN:
            chunks_of_series[chunk.series].append(chunk)
    total_bytes = 0
    for series, pictures in chunks_of_series.items():
        slices = []
        for chunk in sorted(pictures, key=lambda chunk: chunk.slice):
            height, width = _IMAGE.unpack_from(data, chunk.content_offset)
            check_pixels(width, height, len(pictures))
            total_bytes += 2 * width * height
            begin = chunk.content_offset + _IMAGE.size
            pixels = data[begin : begin + 2 * width * height]
            # The sum is checked too, because many chunks of a hostile file may refer to the same bytes.
            if total_bytes > len(data) or len(pixels) < 2 * width * height:
                raise DataError(f"is cut short: slice {chunk.slice} should have {width}x{height} pixels")
            slices.append(display_levels()[np.frombuffer(pixels, "<u2").reshape(height, width)])
        yield series, slices


@lru_cache(maxsize=1)
def display_levels() -> Image8:
    """Returns (65536,): the level that HEYEX shows for each 16-bit float."""
    bits = np.arange(65_536)
    exponent, mantissa = bits >> 10, (bits & 1023) / 1024
    value = np.where(exponent, np.ldexp(1 + mantissa, exponent - 63), np.ldexp(mantissa, -62))
    value[value > _UNMEASURED] = np.finfo(np.float32).max
    return heidelberg_display(value)
