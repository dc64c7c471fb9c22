"""Reads DICOM of modality OPT into volumes of 8-bit B-scans, with patient and eye.

A file is DICOM by its content (`DICM` after 128 bytes), else by `.dcm`, `.dicom` or `.ima`.

    MONOCHROME1        inverted, by the bits that are stored; so are files with a negative rescale slope
    PALETTE COLOR      through its table; YBR and RGB as RGB, in either planar configuration
    8 bit              as it is; deeper, signed and floating point scaled over the volume as
                       `retfound_dist.images.gray_scaling` says
    padding            (Pixel Padding Value) as dark as the darkest pixel
    window, rescale    not applied, with a note: they differ from file to file and are meant for a screen.
                       The scaling above gives the same picture for any positive slope and intercept
    frames             the file is refused unless it has all frames of NumberOfFrames, complete
    eye                ImageLaterality, Laterality, or that of the frames; two eyes are two volumes
"""

from __future__ import annotations

from typing import Any

from retfound_dist.errors import DataError
from shards.sources.devices.dicom_frames import read_frames
from shards.sources.devices.error_text import safe_error_text
from shards.sources.devices.volume import (
    FileWithoutScans,
    Image8,
    Volume,
    check_pixels,
    eye_of,
    pseudonym,
    scale_slices,
)

DICOM_EXTENSIONS = (".dcm", ".dicom", ".ima")
_PREAMBLE = 128
_DIRECTORY = "1.2.840.10008.1.3.10"
"""SOP class of a DICOMDIR."""
_GROUPS = (b"\x02\0", b"\x08\0")
"""First groups of a file without a preamble."""


def has_preamble(path: str) -> bool:
    """Whether a file has DICOM's preamble: `DICM` after 128 bytes."""
    with open(path, "rb") as stream:
        return stream.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"


def read_dicom(path: str) -> list[Volume]:
    """Returns one volume for each eye.

    FileWithoutScans for another modality, DataError where it cannot be read correctly."""
    from pydicom import dcmread
    from pydicom.uid import UID

    bare = not has_preamble(path)
    if bare:
        # `force` makes pydicom read anything as DICOM.
        _check_bare(path)
    file = dcmread(path, force=bare)
    if str(file.file_meta.get("MediaStorageSOPClassUID", "")) == _DIRECTORY:
        raise FileWithoutScans("is a DICOMDIR, an index of other files")
    modality = str(file.get("Modality", "") or "")
    # An error and not FileWithoutScans, because a file with a truncated header also lacks its modality.
    if not modality:
        raise DataError("is DICOM without a modality: it is cut short, or not from a device")
    if modality != "OPT":
        raise FileWithoutScans(f"is DICOM of modality {_shown(modality)}, not OPT")
    if not file.file_meta.get("TransferSyntaxUID"):
        # pydicom does not decode pixels without a transfer syntax.
        file.file_meta.TransferSyntaxUID = UID(_plain_syntax(file))
    _check_header(file)
    # After the check of the header, because decoding allocates the memory that the header promises.
    slices = _read_slices(file, path)
    patient, ignored_settings = pseudonym(file.get("PatientID")), _ignored_settings(file)
    return [
        Volume([slices[place] for place in places], patient, eye, ignored_settings)
        for eye, places in _by_eye(file, len(slices)).items()
    ]


def _read_slices(file: Any, path: str) -> list[Image8]:
    """Returns the file's B-scans as 8-bit pixels."""
    try:
        return scale_slices(read_frames(file))
    except DataError:
        raise
    except Exception as error:  # decoders raise any error on a damaged file
        raise DataError(f"is DICOM that cannot be read ({safe_error_text(error, path, file)})") from error


def _check_bare(path: str) -> None:
    """DataError if a file without the preamble does not begin with a DICOM element."""
    with open(path, "rb") as stream:
        begin = stream.read(2)
    if begin not in _GROUPS:
        raise DataError("is not a DICOM file: no DICM after 128 bytes and no DICOM element at its beginning")


def _plain_syntax(file: Any) -> str:
    """Returns the transfer syntax by which pydicom has read a file that names none."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = file.original_encoding
    if not little:
        return str(ExplicitVRBigEndian)
    return str(ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian)


def _shown(modality: str) -> str:
    """Returns a modality code such as OPT, or `(unknown)` for other text, which may be a person's name."""
    is_code = modality.isascii() and modality.isalpha() and modality.isupper() and len(modality) <= 8
    return modality if is_code else "(unknown)"


def _check_header(file: Any) -> None:
    for name in ("Rows", "Columns"):
        if not file.get(name):
            raise DataError(f"has no {name}: export it again")
    if not any(name in file for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise DataError("has no pixel data: export it again with its images")
    check_pixels(int(file.Columns), int(file.Rows), int(file.get("NumberOfFrames", 1) or 1))


def _by_eye(file: Any, count: int) -> dict[str | None, list[int]]:
    """Returns eye -> places of its frames. The eye is None if it is not known, or both (`B`)."""
    for name in ("ImageLaterality", "Laterality"):
        if file.get(name):
            return {eye_of(file.get(name)): list(range(count))}
    shared = [_laterality(group) for group in file.get("SharedFunctionalGroupsSequence") or ()]
    if any(shared):
        return {eye_of(shared[0]): list(range(count))}
    frame_eyes = [eye_of(_laterality(group)) for group in file.get("PerFrameFunctionalGroupsSequence") or ()]
    places_of_eye: dict[str | None, list[int]] = {}
    for place in range(count):
        places_of_eye.setdefault(frame_eyes[place] if len(frame_eyes) == count else None, []).append(place)
    return places_of_eye


def _laterality(group: Any) -> str:
    for anatomy in group.get("FrameAnatomySequence") or ():
        return str(anatomy.get("FrameLaterality", "") or "")
    return ""


def _ignored_settings(file: Any) -> tuple[str, ...]:
    """Returns display settings in the file that are not applied: window, rescale."""
    groups = [*(file.get("SharedFunctionalGroupsSequence") or ())]
    groups += [*(file.get("PerFrameFunctionalGroupsSequence") or ())][:1]
    window = "WindowCenter" in file or "VOILUTSequence" in file
    window |= any("FrameVOILUTSequence" in group for group in groups)
    rescale = "RescaleSlope" in file or "ModalityLUTSequence" in file
    rescale |= any("PixelValueTransformationSequence" in group for group in groups)
    return (*(("window",) if window else ()), *(("rescale",) if rescale else ()))
