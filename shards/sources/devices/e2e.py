"""Heidelberg .e2e, as UOCTE and LibE2E describe it: a chain of directories that name chunks.

    CMDb header (36 bytes), MDbMDir (52): where the last directory begins
    MDbDir (52) with 512 entries of 44 bytes: where each chunk begins; the place of the directory before it
    MDbData (60): ids of patient, study, series and slice (twice its number), kind; then the chunk's content

Of the kinds, 9 holds the patient, 11 and 3 the eye, 0x40000000 images: 8-bit fundus (index 0) and B-scans (1)
of unsigned 16-bit floats (6 bits of exponent, 10 of mantissa), which are reflectances as in a .vol. All of
a real .vol's values have such mantissas. A file may hold several patients and eyes.

Read here and not with oct-converter or eyepy, which take the mantissa's bits in reverse (speckle of up
to 21 levels); oct-converter also paints what was not measured white, gives all scans the last patient,
leaves out broken ones without a word and follows a directory that runs in a circle for ever.
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
"""Index of a B-scan among pictures."""
_NUMBER_AT, _NUMBER_BYTES = 102, 25
"""Of the patient's number in a chunk of kind 9: after two names, birth date and sex."""
_UNMEASURED = 1.99
"""Reflectances end at 1; what is stored as more was not measured (eyepy)."""
Series = tuple[int, int, int]
"""The file's ids of patient, study and series."""


@dataclass(frozen=True)
class _Chunk:
    series: Series
    slice: int
    index: int
    kind: int
    content: int
    """Where its content begins."""


def read_e2e(path: str) -> list[Volume]:
    """Every series of B-scans, in the order in which they stand in the file."""
    # Mapped: a file may have 4 GB, and only its B-scans and three small kinds of chunk are read.
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        base = 64 if data[:21] == b"E2EMultipleVolumeFile" else 0
        if data[base : base + 4] != b"CMDb":
            raise DataError("is no .e2e file (it has no CMDb header)")
        starts = _starts(data, base)
        chunks = [chunk for start, kind in starts.items() if (chunk := _chunk(data, base, start, kind))]
        # Found first for the whole file: the chunk of an eye may come after its B-scans.
        numbers, eyes = _patients(data, chunks), _eyes(data, chunks)
        return [
            Volume(slices, numbers.get(series[0]) or pseudonym(series[0]), eyes.get(series))
            for series, slices in _pictures(data, chunks)
        ]


def _starts(data: mmap.mmap, base: int) -> dict[int, int]:
    """Where the chunks begin and of what kind they are, by the directories, the first one first.

    DataError where they are broken or run in a circle.
    """
    at = _DIRECTORY.unpack_from(data, base + 36)[2]
    directories: dict[int, int] = {}
    while at:
        magic, count, _, before, _ = _DIRECTORY.unpack_from(data, base + at)
        # Without the first condition a chain that runs in a circle never ends.
        if at in directories or not magic.startswith(b"MDbDir"):
            raise DataError("has a broken directory")
        directories[at] = count
        if sum(directories.values()) * _ENTRY.itemsize > len(data):
            raise DataError("has directories larger than itself")
        at = before
    kind_of_start: dict[int, int] = {}
    for at, count in reversed(directories.items()):
        begin = base + at + _DIRECTORY.size
        entries = np.frombuffer(data[begin : begin + count * _ENTRY.itemsize], _ENTRY, count)
        # A directory has 512 entries, whether it uses them or not.
        used = entries[entries["start"] > entries["place"]]
        kind_of_start.update(zip(used["start"].tolist(), used["kind"].tolist(), strict=True))
    return kind_of_start


def _chunk(data: mmap.mmap, base: int, start: int, kind: int) -> _Chunk | None:
    """Reads one chunk's head. None where anonymising has erased it; DataError where that was a picture."""
    begin = base + start
    head = data[begin : begin + _CHUNK.size]
    if len(head) < _CHUNK.size or not head.startswith(b"MDbData"):
        if kind == _PICTURE:
            raise DataError("is cut short: a picture it names is not there")
        return None
    patient, study, series, place, index, kind = _CHUNK.unpack(head)
    return _Chunk((patient, study, series), place // 2, index, kind, begin + _CHUNK.size)


def _patients(data: mmap.mmap, chunks: list[_Chunk]) -> dict[int, str | None]:
    """The digest of each patient's number, by the file's own id."""
    known = {}
    for chunk in chunks:
        if chunk.kind == _PATIENT:
            begin = chunk.content + _NUMBER_AT
            number = data[begin : begin + _NUMBER_BYTES].split(b"\0")[0]
            known[chunk.series[0]] = pseudonym(number.decode("latin-1"))
    return known


def _eyes(data: mmap.mmap, chunks: list[_Chunk]) -> dict[Series, str]:
    known: dict[Series, str] = {}
    # Kind 11 last: where a file has both, it stands.
    for kind, at in ((_SCAN_EYE, 4), (_EYE, 14)):
        for chunk in chunks:
            letter = data[chunk.content + at : chunk.content + at + 1].decode("latin-1")
            if chunk.kind == kind and (eye := eye_of(letter)):
                known[chunk.series] = eye
    return known


def _pictures(data: mmap.mmap, chunks: list[_Chunk]) -> Iterator[tuple[Series, list[Image8]]]:
    """Each series' B-scans by the number of the slice; DataError where one is not whole."""
    chunks_of_series: dict[Series, list[_Chunk]] = defaultdict(list)
    for chunk in chunks:
        if chunk.kind == _PICTURE and chunk.index == _SCAN:
            chunks_of_series[chunk.series].append(chunk)
    promised = 0
    for series, pictures in chunks_of_series.items():
        slices = []
        for chunk in sorted(pictures, key=lambda chunk: chunk.slice):
            height, width = _IMAGE.unpack_from(data, chunk.content)
            check_pixels(width, height, len(pictures))
            promised += 2 * width * height
            begin = chunk.content + _IMAGE.size
            pixels = data[begin : begin + 2 * width * height]
            # Many chunks of a hostile file may name the same bytes: together they cannot exceed the file.
            if promised > len(data) or len(pixels) < 2 * width * height:
                raise DataError(f"is cut short: slice {chunk.slice} promises {width}x{height} pixels")
            slices.append(display_levels()[np.frombuffer(pixels, "<u2").reshape(height, width)])
        yield series, slices


@lru_cache(maxsize=1)
def display_levels() -> Image8:
    """(65536,) level of each 16-bit float, as HEYEX shows it."""
    bits = np.arange(65_536)
    exponent, mantissa = bits >> 10, (bits & 1023) / 1024
    value = np.where(exponent, np.ldexp(1 + mantissa, exponent - 63), np.ldexp(mantissa, -62))
    value[value > _UNMEASURED] = np.finfo(np.float32).max
    return heidelberg_display(value)
