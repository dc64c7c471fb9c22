"""Raw exports of OCT devices -> 8-bit B-scans, one function a format; intensities as the maker shows them.

    .vol .e2e    Heidelberg: raw reflectance R of 0 to 1 -> (ln(R + 2.44e-4) + 8.3) / 8.285, as HEYEX
                 displays it; what is no measurement (largest float) turns black
    .xml         Heyex XML: 8-bit images beside it, as they are
    .fda .fds    Topcon: 8-bit JPEG as it is; 16 bit scaled over the whole volume (retfound_dist.pixels)
    .img         Zeiss Cirrus: 8 bit as it is; 1024 deep, width from the name (200x200, 512x128)
    .oct         Bioptigen: 16 bit scaled over the whole volume
    .dcm         DICOM: modality OPT; window or rescale left aside, more than 8 bit scaled over the volume
    .mat         MATLAB 5: `images` (height, width, n); `B0`, `B1` ... (a .vol in MATLAB); else the largest
                 array; floats scaled over the whole volume

Names, birth dates and record numbers stay in the files: of a patient number only a digest leaves here.
"""

from __future__ import annotations

import io
import os
import re
import types
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from retfound_dist.errors import ConfigError, DataError
from shards.sources.volume import Volume, check_pixels, eye_of, heidelberg_display, pseudonym, scaled

MAX_FILE_BYTES = 4_000_000_000


def read_volumes(path: str) -> list[Volume]:
    """Every volume of a device file; DataError where it is broken, ConfigError where a library is missing."""
    extension = os.path.splitext(path)[1].lower()
    if os.path.getsize(path) > MAX_FILE_BYTES:
        raise DataError(f"has {os.path.getsize(path):,} bytes, more than {MAX_FILE_BYTES:,}")
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # oct-converter prints
            warnings.simplefilter("ignore")
            volumes = READERS[extension](path)
    except ImportError as error:
        raise ConfigError(
            f"{extension} files need {error.name}: pip install 'retfound-dist[devices]'"
        ) from error
    except DataError:
        raise
    except MemoryError as error:
        raise DataError("asks for more memory than there is") from error
    except Exception as error:  # a hostile file makes these libraries raise anything
        line = (str(error).splitlines() or [""])[0][:120]
        raise DataError(f"is not a readable {extension} file ({type(error).__name__}: {line})") from error
    if not any(len(volume.slices) for volume in volumes):
        raise DataError("holds no B-scans")
    return volumes


def _read_vol(path: str) -> list[Volume]:
    from eyepy.io.he.vol_reader import HeVolReader

    _check_vol_header(path)
    file = HeVolReader(path).parsed_file  # its `volume` refuses circular and radial scans
    slices = [heidelberg_display(scan.data) for scan in file.bscans]
    return [Volume(slices, pseudonym(file.patient_id) or pseudonym(file.pid), eye_of(file.scan_position))]


def _check_vol_header(path: str) -> None:
    """After 12 bytes of version: width, B-scans, height (Heidelberg's HSF-OCT-103), read before all else."""
    with open(path, "rb") as stream:
        head = stream.read(24)
    if len(head) < 24:
        raise DataError("is cut short in its header")
    width, count, height = (int.from_bytes(head[at : at + 4], "little") for at in (12, 16, 20))
    check_pixels(width, height, count)
    if 4 * width * height * count > os.path.getsize(path):
        raise DataError(f"is cut short: its header promises {count} B-scans of {width}x{height}")


def _read_e2e(path: str) -> list[Volume]:
    from oct_converter.readers import E2E

    return [
        Volume(
            [np.round(np.asarray(scan) * 255).astype(np.uint8) for scan in found.volume],
            pseudonym(found.patient_id),
            eye_of(found.laterality),
        )
        for found in E2E(path).read_oct_volume()
    ]


def _read_xml(path: str) -> list[Volume]:
    from eyepy.io.he.xml_reader import HeXmlReader

    from shards.images import decode
    from shards.sources.folder import read_inside

    reader = HeXmlReader(path)
    folder = os.path.realpath(os.path.dirname(path))
    names = [scan["scan_name"] for scan in reader.bscan_meta]
    slices = [decode(read_inside(folder, name)) for name in names]
    number = reader.parsed_values["patient_id"] or reader.parsed_values["pid"]
    return [Volume(slices, pseudonym(number), eye_of(reader.parsed_values["scan_position"]))]


def _read_fda(path: str) -> list[Volume]:
    import oct_converter.readers.fda as fda

    fda.np = _numpy_with_fromstring()
    file = fda.FDA(path)
    slices, _ = file.read_oct_data_chunk()  # its `read_oct_volume` fails on files without dates
    if slices is None:
        raise DataError("holds no OCT images that can be read (@IMG_JPEG or @IMG_MOT_COMP_03)")
    capture = _chunk(file, b"@CAPTURE_INFO_02") or _chunk(file, b"@CAPTURE_INFO")
    person = _chunk(file, b"@PATIENT_INFO_02") or _chunk(file, b"@PATIENT_INFO")
    eye = {0: "R", 1: "L"}.get(capture.get("eye", -1))
    return [Volume(scaled(slices), pseudonym(person.get("patient_id")), eye)]


def _chunk(file: Any, name: bytes) -> dict[str, Any]:
    return file.read_any_info_and_make_dict(name) or {} if name in file.chunk_dict else {}


def _read_fds(path: str) -> list[Volume]:
    import oct_converter.readers.fds as fds

    fds.np = _numpy_with_fromstring()
    found = fds.FDS(path).read_oct_volume()
    return [Volume(scaled(found.volume), pseudonym(found.patient_id), eye_of(found.laterality))]


def _numpy_with_fromstring() -> Any:
    """NumPy as oct-converter 0.7 expects it: 2.3 has dropped `fromstring` of bytes."""
    compatible = types.SimpleNamespace(**{name: getattr(np, name) for name in np.__all__})
    compatible.fromstring = lambda data, dtype: np.frombuffer(data, dtype)
    return compatible


def _read_img(path: str) -> list[Volume]:
    from oct_converter.readers import IMG

    size, depth = os.path.getsize(path), 1024
    named = re.search(r"(\d{2,4})x\d{2,4}", os.path.basename(path))
    width = int(named[1]) if named else 512
    if not size or size % (depth * width):
        raise DataError(f"has {size:,} bytes, not a number of B-scans of {depth}x{width}")
    check_pixels(width, depth, size // (depth * width))
    found = IMG(path).read_oct_volume(rows=depth, cols=width)
    slices = [np.ascontiguousarray(scan) for scan in found.volume]
    return [Volume(slices, pseudonym(found.patient_id), eye_of(found.laterality))]


def _read_bioptigen(path: str) -> list[Volume]:
    from oct_converter.readers import BOCT

    reader = BOCT(path)
    eye = re.search(r"(?:^|[_\W])(OD|OS)(?:[_\W]|$)", os.path.basename(path))
    return [
        Volume(scaled(np.asarray(found.volume).transpose(0, 2, 1)), None, eye_of(eye[1] if eye else None))
        for found in reader.read_oct_volume()
    ]


def _read_dicom(path: str) -> list[Volume]:
    from pydicom import dcmread

    head = dcmread(path, stop_before_pixels=True)
    if str(head.get("Modality", "")) != "OPT":
        raise DataError(f"is DICOM of modality {head.get('Modality', '(none)')!s:.16}, not OPT")
    check_pixels(int(head.Columns), int(head.Rows), int(head.get("NumberOfFrames", 1) or 1))
    whole = dcmread(path)
    pixels = whole.pixel_array
    one = 2 if int(head.get("SamplesPerPixel", 1)) == 1 else 3
    frames = pixels[None] if pixels.ndim == one else pixels
    return [Volume(scaled(frames), pseudonym(head.get("PatientID")), eye_of(_dicom_eye(head)))]


def _dicom_eye(head: Any) -> str | None:
    for name in ("ImageLaterality", "Laterality"):
        if head.get(name):
            return str(head.get(name))
    for group in head.get("SharedFunctionalGroupsSequence", []):
        for anatomy in group.get("FrameAnatomySequence", []):
            return str(anatomy.get("FrameLaterality", ""))
    return None


def _read_mat(path: str) -> list[Volume]:
    from scipy.io import loadmat, whosmat

    shapes = {name: shape for name, shape, kind in whosmat(path) if kind not in ("cell", "struct", "char")}
    single = sorted((n for n in shapes if re.fullmatch(r"B\d+", n)), key=lambda n: int(n[1:]))
    if "images" not in shapes and single:
        height, width = shapes[single[0]][:2]
        check_pixels(width, height, len(single))
        known = loadmat(path, variable_names=[*single, "ScanPosition", "PatientID"])
        slices = [heidelberg_display(known[name]) for name in single]
        return [Volume(slices, pseudonym(_text(known, "PatientID")), eye_of(_text(known, "ScanPosition")))]
    images = [name for name, shape in shapes.items() if len(shape) in (2, 3) and min(shape[:2]) >= 32]
    if not images:
        raise DataError("holds no array of images (height, width, number)")
    name = "images" if "images" in images else max(images, key=lambda n: int(np.prod(shapes[n])))
    height, width, count = (*shapes[name], 1)[:3]
    check_pixels(width, height, count)
    pixels = np.atleast_3d(loadmat(path, variable_names=[name])[name])
    return [Volume(scaled(pixels.transpose(2, 0, 1)))]


def _text(known: dict[str, Any], name: str) -> str:
    return "".join(str(part) for part in np.asarray(known.get(name, "")).ravel())


READERS: dict[str, Callable[[str], list[Volume]]] = {
    ".vol": _read_vol,
    ".e2e": _read_e2e,
    ".xml": _read_xml,
    ".fda": _read_fda,
    ".fds": _read_fds,
    ".img": _read_img,
    ".oct": _read_bioptigen,
    ".dcm": _read_dicom,
    ".mat": _read_mat,
}
"""File name's end -> reader."""
