"""A volume of B-scans from a device file, and functions that all readers of such files share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.errors import DataError
from retfound_dist.images.gray_scaling import to_8_bit
from retfound_dist.listing.image_lists import is_known

Image8 = NDArray[np.uint8]
MAX_VOLUME_PIXELS = 1_000_000_000
"""A 12x12 mm swept-source cube has some 800 million. A file that claims more is not decoded."""
_EYES = {"OD": "R", "OS": "L", "R": "R", "L": "L", "RIGHT": "R", "LEFT": "L"}


class FileWithoutScans(DataError):
    """A valid file without B-scans: of another program or modality. It does not count as bad."""


@dataclass(frozen=True)
class Volume:
    """One volume of a device file."""

    slices: Sequence[Image8]
    """Each (height, width), depth downwards."""
    patient: str | None = None
    """A digest of the patient number in the file; None if there is none."""
    eye: str | None = None
    """`L` or `R`."""
    ignored_settings: tuple[str, ...] = ()
    """Display settings of the file that are not applied: `window`, `rescale`."""
    companions: tuple[str, ...] = ()
    """Names of other files in the folder that belong to the export."""


def pseudonym(number: object) -> str | None:
    """Returns a digest of a patient number; None for an empty one, `anonymous` or zeros."""
    text = str(number if number is not None else "").strip().strip("\0").strip()
    if not is_known(text) or not text.strip("0"):
        return None
    return f"p{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def heidelberg_display(reflectance: NDArray[Any]) -> Image8:
    """Converts raw reflectance to the levels of HEYEX (eyepy, from the maker's export description)."""
    from eyepy.core.utils import from_vol_intensity

    values = np.array(reflectance, np.float32)
    # Heidelberg marks pixels without a measurement by the largest float, which eyepy turns black.
    values[~np.isfinite(values) | (values < 0)] = np.finfo(np.float32).max
    shown: Image8 = from_vol_intensity(values)
    return shown


def scale_slices(slices: Sequence[NDArray[Any]] | NDArray[Any]) -> list[Image8]:
    """Converts all slices to 8 bit with one scale, so that a dark slice stays darker than its neighbours."""
    # 8-bit levels are those that the device shows. Stretching them would change the contrast.
    if all(np.asarray(scan).dtype == np.uint8 for scan in slices):
        return [np.ascontiguousarray(scan) for scan in slices]
    whole = np.asarray(slices)
    if whole.dtype.kind == "f" and whole.size and whole.min() >= 0 and 1 < whole.max() <= 255:
        return list(np.round(whole).astype(np.uint8))  # 8-bit levels stored as floats, as in Duke's files
    return list(to_8_bit(whole))


def eye_of(text: object) -> str | None:
    """Returns `L` or `R` for any spelling of the makers, else None."""
    return _EYES.get(str(text or "").strip().strip("\0").split(".")[-1].upper())


def check_pixels(width: int, height: int, count: int) -> None:
    """Raises DataError for a size in a header that no volume has. Called before memory is allocated."""
    if min(width, height, count) < 1 or width * height * count > MAX_VOLUME_PIXELS:
        raise DataError(f"has a header of {count} B-scans of {width}x{height}: not the size of a volume")
