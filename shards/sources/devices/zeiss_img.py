"""Reads Zeiss Cirrus .img: 8-bit pixels without a header. Everything else is in the file's name.

    P123_Macular Cube 512x128_1-2-2020_10-20-30_OD_sn4567_cube_z.img      or cube_raw; 128 B-scans
    P123_Optic Disc Cube 200x200_..._hidef_z.img                          2 of 1,000 (macula: 1,024) columns
    P123_HD 5 Line Raster_..._lineEnhanced.img                            5 of 1,024 columns

All are 1,024 deep. The order is (B-scan, depth, width), each of the three reversed: upside down, mirrored,
the last B-scan first. AURA's octCirrusReader, RETIMAT and others read it so. oct-converter swaps columns and
rows and leaves the scans upside down.
"""

from __future__ import annotations

import os
import re

import numpy as np

from retfound_dist.errors import DataError
from shards.sources.devices.volume import Volume, check_pixels, eye_of, pseudonym

DEPTH, HD_WIDTH, DISC_WIDTH, USUAL_WIDTH = 1024, 1024, 1000, 512
_PATIENT = re.compile(r"(.+?)_(?:Macular|Optic|HD|\d+ Line)\b", re.IGNORECASE)
_CUBE = re.compile(r"\b(\d{2,4})x(\d{2,4})(?!\d)")
_EYE = re.compile(r"(?:^|[_\W])(OD|OS)(?:[_\W]|$)")


def read_img(path: str) -> list[Volume]:
    """Reads the B-scans as Zeiss shows them; DataError if the file's size does not fit its name."""
    name, size = os.path.basename(path), os.path.getsize(path)
    width, named_count = shape_of(name)
    count, rest = divmod(size, DEPTH * width)
    # The size is the only possible check, because the file has no header.
    if rest or not count or (named_count and count != named_count):
        expected = f"{named_count or 'some'} B-scans of {DEPTH}x{width}"
        raise DataError(f"has {size:,} bytes, which do not fit {expected} as in its name")
    check_pixels(width, DEPTH, count)
    pixels = np.fromfile(path, np.uint8).reshape(count, DEPTH, width)[::-1, ::-1, ::-1]
    patient, eye = _PATIENT.match(name), eye_in_name(name)
    return [Volume([np.ascontiguousarray(p) for p in pixels], pseudonym(patient and patient[1]), eye)]


def shape_of(name: str) -> tuple[int, int]:
    """Returns (columns, B-scans) from a file's name; 0 B-scans if it does not say."""
    if "hidef" in name.lower():
        return (DISC_WIDTH if "optic" in name.lower() else HD_WIDTH), 2
    if cube := _CUBE.search(name):
        return int(cube[1]), int(cube[2])
    return (HD_WIDTH if re.search(r"\bline", name, re.IGNORECASE) else USUAL_WIDTH), 0


def eye_in_name(name: str) -> str | None:
    """Returns the eye from OD or OS in a file's name."""
    match = _EYE.search(name)
    return eye_of(match[1] if match else None)
