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

import hashlib
import os
import re
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.errors import ConfigError, DataError
from retfound_dist.pixels import to_8_bit

Image8 = NDArray[np.uint8]
MAX_FILE_BYTES = 4_000_000_000
MAX_VOLUME_PIXELS = 1_000_000_000
"""A 12x12 mm swept-source cube has some 800 million; what claims more is not decoded."""
_EYES = {"OD": "R", "OS": "L", "R": "R", "L": "L", "RIGHT": "R", "LEFT": "L"}


@dataclass(frozen=True)
class Volume:
    """One volume of a device file."""

    slices: Sequence[Image8]
    """(height, width) each, depth downwards."""
    patient: str | None = None
    """A digest of the device's patient number; None where it has none."""
    eye: str | None = None
    """`L` or `R`."""


def read_volumes(path: str) -> list[Volume]:
    """Every volume of a device file; DataError where it is broken, ConfigError where a library is missing."""
    extension = os.path.splitext(path)[1].lower()
    if os.path.getsize(path) > MAX_FILE_BYTES:
        raise DataError(f"has {os.path.getsize(path):,} bytes, more than {MAX_FILE_BYTES:,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            volumes = READERS[extension](path)
    except ImportError as error:
        raise ConfigError(
            f"{extension} files need {error.name}: pip install 'retfound-dist[devices]'"
        ) from error
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a hostile file makes these libraries raise anything
        line = (str(error).splitlines() or [""])[0][:120]
        raise DataError(f"is not a readable {extension} file ({type(error).__name__}: {line})") from error
    if not any(len(volume.slices) for volume in volumes):
        raise DataError("holds no B-scans")
    return volumes


def pseudonym(number: object) -> str | None:
    """A digest that tells patients apart and does not tell who they are; None for none."""
    text = str(number if number is not None else "").strip().strip("\0").strip()
    return f"p{hashlib.sha256(text.encode()).hexdigest()[:12]}" if text not in ("", "0", "None") else None


def heidelberg_display(reflectance: NDArray[Any]) -> Image8:
    """Raw reflectance as HEYEX shows it (eyepy, after the maker's export description)."""
    from eyepy.core.utils import from_vol_intensity

    values = np.array(reflectance, np.float32)
    values[~np.isfinite(values) | (values < 0)] = np.finfo(np.float32).max
    shown: Image8 = from_vol_intensity(values)
    return shown


def _read_vol(path: str) -> list[Volume]:
    from eyepy.io.he.vol_reader import HeVolReader

    _check_vol_header(path)
    file = HeVolReader(path).parsed_file  # its `volume` refuses circular and radial scans
    slices = [heidelberg_display(scan.data) for scan in file.bscans]
    return [Volume(slices, pseudonym(file.patient_id) or pseudonym(file.pid), eye_of(file.scan_position))]


def _check_vol_header(path: str) -> None:
    """Sizes at byte 12: width, B-scans; at 40: height (Heidelberg's HSF-OCT-103)."""
    with open(path, "rb") as stream:
        head = stream.read(64)
    if not head.startswith(b"HSF-OCT") or len(head) < 64:
        raise DataError("does not begin like a Heidelberg .vol file")
    width, count, height = (int.from_bytes(head[at : at + 4], "little") for at in (12, 16, 20))
    _check_pixels(width, height, count)
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


def _read_topcon(path: str) -> list[Volume]:
    import oct_converter.readers.fda as fda
    import oct_converter.readers.fds as fds

    module, reader = (fda, "FDA") if path.lower().endswith(".fda") else (fds, "FDS")
    module.np = _numpy_with_fromstring()
    found = getattr(module, reader)(path).read_oct_volume()
    if found.volume is None:
        raise DataError("holds no OCT images that can be read (@IMG_JPEG, @IMG_MOT_COMP_03 or @IMG_SCAN_03)")
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
    _check_pixels(width, depth, size // (depth * width))
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
    _check_pixels(int(head.Columns), int(head.Rows), int(head.get("NumberOfFrames", 1) or 1))
    whole = dcmread(path)
    pixels = whole.pixel_array
    frames = pixels[None] if pixels.ndim == 2 else pixels
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
        _check_pixels(*shapes[single[0]][:2], len(single))
        known = loadmat(path, variable_names=[*single, "ScanPosition", "PatientID"])
        slices = [heidelberg_display(known[name]) for name in single]
        return [Volume(slices, pseudonym(_text(known, "PatientID")), eye_of(_text(known, "ScanPosition")))]
    images = [name for name, shape in shapes.items() if len(shape) in (2, 3) and min(shape[:2]) >= 32]
    if not images:
        raise DataError("holds no array of images (height, width, number)")
    name = "images" if "images" in images else max(images, key=lambda n: int(np.prod(shapes[n])))
    _check_pixels(*(*shapes[name], 1)[:3])
    pixels = np.atleast_3d(loadmat(path, variable_names=[name])[name])
    return [Volume(scaled(pixels.transpose(2, 0, 1)))]


def _text(known: dict[str, Any], name: str) -> str:
    return "".join(str(part) for part in np.asarray(known.get(name, "")).ravel())


def scaled(slices: Sequence[NDArray[Any]] | NDArray[Any]) -> list[Image8]:
    """All slices to 8 bit by one scale, so that a dark slice stays dark beside its neighbours."""
    if all(np.asarray(scan).dtype == np.uint8 for scan in slices):
        return [np.ascontiguousarray(scan) for scan in slices]
    whole = np.asarray(slices)
    if whole.dtype.kind == "f" and whole.size and whole.min() >= 0 and 1 < whole.max() <= 255:
        return list(np.round(whole).astype(np.uint8))  # 8-bit levels kept as floats, as Duke's are
    return list(to_8_bit(whole))


def eye_of(text: object) -> str | None:
    """`L` or `R` of any of the makers' spellings."""
    return _EYES.get(str(text or "").strip().strip("\0").split(".")[-1].upper())


def _check_pixels(width: int, height: int, count: int) -> None:
    if min(width, height, count) < 1 or width * height * count > MAX_VOLUME_PIXELS:
        raise DataError(f"promises {count} B-scans of {width}x{height}: not the size of a volume")


def _formats() -> Iterator[tuple[str, Callable[[str], list[Volume]]]]:
    yield from {".vol": _read_vol, ".e2e": _read_e2e, ".xml": _read_xml, ".mat": _read_mat}.items()
    yield from {".fda": _read_topcon, ".fds": _read_topcon, ".img": _read_img}.items()
    yield from {".oct": _read_bioptigen, ".dcm": _read_dicom}.items()


READERS = dict(_formats())
"""File name's end -> reader."""
