"""Raw exports of OCT devices -> 8-bit B-scans, one function a format; intensities as the maker shows them.

    .vol .e2e    Heidelberg: raw reflectance R of 0 to 1 -> (ln(R + 2.44e-4) + 8.3) / 8.285, as HEYEX
                 displays it; what is no measurement (largest float) turns black
    .xml         Heyex XML: 8-bit images beside it, as they are (heyex_xml.py)
    .fda .fds    Topcon: 8-bit JPEG as it is; 16 bit scaled over the whole volume (images.gray_scaling)
    .img         Zeiss Cirrus: 8 bit as it is; 1024 deep, width from the name (200x200, 512x128)
    .oct         Bioptigen: 16 bit scaled over the whole volume
    .dcm         DICOM: modality OPT (also .dicom, .ima, and any name where the content says so): dicom/
    .mat         MATLAB 5: `images` (height, width, n); `B0`, `B1` ... (a .vol in MATLAB); else the largest
                 array; floats scaled over the whole volume, unless they are 8-bit levels

Names, birth dates and record numbers are not read. Of a patient number only a digest is returned.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from retfound_dist.errors import ConfigError, DataError
from retfound_dist.runtime.optional_packages import requires_extra
from shards.sources.devices.dicom import DICOM_EXTENSIONS, has_preamble, read_dicom
from shards.sources.devices.e2e import read_e2e
from shards.sources.devices.error_text import safe_error_text
from shards.sources.devices.heyex_xml import read_heyex_xml
from shards.sources.devices.topcon_raw import read_topcon
from shards.sources.devices.volume import (
    FileWithoutScans,
    Volume,
    check_pixels,
    eye_of,
    heidelberg_display,
    pseudonym,
    scale_slices,
)
from shards.sources.devices.zeiss_img import eye_in_name, read_img

MAX_FILE_BYTES = 4_000_000_000
MIN_MAT_IMAGE_PIXELS = 32
"""Least height and width of images in a .mat file. Smaller arrays are tables of numbers."""
Shapes = Mapping[str, tuple[int, ...]]
"""Name -> shape, of the arrays in a .mat file."""


def read_volumes(path: str) -> list[Volume]:
    """Reads every volume of a device file.

    DataError if it is damaged, FileWithoutScans if it is valid but has no B-scans, ConfigError if a library
    is missing.
    """
    extension = kind_of(path)
    if extension is None:
        raise DataError("is not a device file by its name or content")
    # Some of the libraries read a whole file into memory.
    if os.path.getsize(path) > MAX_FILE_BYTES:
        raise DataError(f"has {os.path.getsize(path):,} bytes, more than {MAX_FILE_BYTES:,}")
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # oct-converter prints
            warnings.simplefilter("ignore")
            with requires_extra(f"reading {extension} files", "devices"):
                volumes = READERS[extension](path)
    except (ConfigError, DataError):
        raise
    except MemoryError as error:
        raise DataError("needs more memory than this machine has") from error
    except Exception as error:  # these libraries raise any error on a hostile file
        raise DataError(f"is not a readable {extension} file ({safe_error_text(error, path)})") from error
    if not any(len(volume.slices) for volume in volumes):
        raise DataError("has no B-scans")
    return volumes


def kind_of(path: str) -> str | None:
    """Returns the extension that selects the reader, `.dcm` for any DICOM file; None for other files."""
    # The content counts before the name, because archives call DICOM files .img or .dat.
    if has_preamble(path):
        return ".dcm"
    extension = os.path.splitext(path)[1].lower()
    return extension if extension in READERS else None


def _read_vol(path: str) -> list[Volume]:
    """Reads a Heidelberg raw export: one volume of raw reflectance."""
    from eyepy.io.he.vol_reader import HeVolReader

    _check_vol_header(path)
    # Not `HeVolReader.volume`, which refuses circular and radial scans.
    file = HeVolReader(path).parsed_file
    slices = [heidelberg_display(scan.data) for scan in file.bscans]
    # `patient_id` is what the clinic entered, `pid` is HEYEX's internal number.
    patient = pseudonym(file.patient_id) or pseudonym(file.pid)
    return [Volume(slices, patient, eye_of(file.scan_position))]


def _check_vol_header(path: str) -> None:
    """Checks width, B-scans and height, after 12 bytes of version (Heidelberg's HSF-OCT-103)."""
    with open(path, "rb") as stream:
        head = stream.read(24)
    if len(head) < 24:
        raise DataError("is cut short in its header")
    width, count, height = (int.from_bytes(head[at : at + 4], "little") for at in (12, 16, 20))
    check_pixels(width, height, count)
    if 4 * width * height * count > os.path.getsize(path):
        raise DataError(f"is cut short: its header says that there are {count} B-scans of {width}x{height}")


def _read_bioptigen(path: str) -> list[Volume]:
    """Reads a Bioptigen export, whose frames are all slices of all volumes, one after the other."""
    from oct_converter.readers import BOCT

    # Not `BOCT.read_oct_volume`, which silently fills up frames that are too small.
    reader = BOCT(path)
    parsed = reader.file_structure.parse_file(path)
    head, frames = parsed.header, [frame.image for frame in parsed.data]
    width, depth, count = frames[0].columns, frames[0].rows, len(frames)
    check_pixels(width, depth, count)
    slices_per_volume = (
        1 if reader.bioptigen_scan_type_map[head.scantype.value] == "linear" else head.scans.value
    )
    if (
        not slices_per_volume
        or count % slices_per_volume
        or any((f.columns, f.rows) != (width, depth) for f in frames)
    ):
        raise DataError(
            f"has {count} frames, not whole volumes of {slices_per_volume} B-scans of {width}x{depth}"
        )
    shape = (width, depth)
    pixels = [np.fromfile(path, "<u2", width * depth, offset=f.offset).reshape(shape).T for f in frames]
    eye = eye_in_name(os.path.basename(path))
    return [
        Volume(scale_slices(pixels[at : at + slices_per_volume]), None, eye)
        for at in range(0, count, slices_per_volume)
    ]


def _read_mat(path: str) -> list[Volume]:
    """Reads one of the two layouts of .mat files: an array for each slice, or one array of all slices."""
    from scipy.io import whosmat

    shapes = {name: shape for name, shape, kind in whosmat(path) if kind not in ("cell", "struct", "char")}
    slice_names = [name for name in shapes if re.fullmatch(r"B\d+", name)]
    if "images" not in shapes and slice_names:
        return [_read_mat_of_slices(path, shapes, sorted(slice_names, key=lambda name: int(name[1:])))]
    return [_read_mat_of_volume(path, shapes)]


def _read_mat_of_slices(path: str, shapes: Shapes, slice_names: Sequence[str]) -> Volume:
    """Reads `B0`, `B1` ... with raw reflectance, and the fields of the .vol file that they came from."""
    from scipy.io import loadmat

    height, width = shapes[slice_names[0]][:2]
    check_pixels(width, height, len(slice_names))
    arrays = loadmat(path, variable_names=[*slice_names, "ScanPosition", "PatientID"])
    slices = [heidelberg_display(arrays[name]) for name in slice_names]
    return Volume(slices, pseudonym(_text(arrays, "PatientID")), eye_of(_text(arrays, "ScanPosition")))


def _read_mat_of_volume(path: str, shapes: Shapes) -> Volume:
    """Reads `images` (height, width, number), or the largest array that can hold images."""
    from scipy.io import loadmat

    candidates = [
        name
        for name, shape in shapes.items()
        if len(shape) in (2, 3) and min(shape[:2]) >= MIN_MAT_IMAGE_PIXELS
    ]
    if not candidates:
        raise FileWithoutScans("is a .mat file without an array of images (height, width, number)")
    largest = max(candidates, key=lambda name: int(np.prod(shapes[name])))
    name = "images" if "images" in candidates else largest
    height, width, count = (*shapes[name], 1)[:3]
    check_pixels(width, height, count)
    # Only this array, because Duke's files also hold manual segmentations as large as the scans.
    pixels = np.atleast_3d(loadmat(path, variable_names=[name])[name])
    return Volume(scale_slices(pixels.transpose(2, 0, 1)))


def _text(arrays: dict[str, Any], name: str) -> str:
    """Returns a text field of a .mat file; empty where there is none."""
    return "".join(str(part) for part in np.asarray(arrays.get(name, "")).ravel())


READERS: dict[str, Callable[[str], list[Volume]]] = {
    ".vol": _read_vol,
    ".e2e": read_e2e,
    ".xml": read_heyex_xml,
    ".fda": read_topcon,
    ".fds": read_topcon,
    ".img": read_img,
    ".oct": _read_bioptigen,
    **dict.fromkeys(DICOM_EXTENSIONS, read_dicom),
    ".mat": _read_mat,
}
"""Extension -> reader."""
TESTED_ON_REAL_FILES = frozenset((".vol", ".xml", ".mat"))
"""Extensions whose readers were tested on files of real devices."""
EXPERIMENTAL = tuple(extension for extension in READERS if extension not in TESTED_ON_REAL_FILES)
"""All others. The tests build such files from the documented layout (docs/device_files.md)."""


def experimental_notes(extensions: Collection[str]) -> Iterator[str]:
    """Yields one line that names the experimental readers of these extensions, if any of them is one."""
    used = [extension for extension in EXPERIMENTAL if extension in extensions]
    if used:
        yield (
            f"experimental: the reader of {', '.join(used)} files was not tested with real files: "
            "look at the contact sheet (examples.jpg) before you train"
        )
