"""Small valid device files, built in the layouts that are documented of them, all of one made-up person.

The fields that must never get out hold NAME, FIRST and BIRTH; `SECRETS` are the ways in which they could.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.shards.pack_inputs import scan_pixels

NAME, FIRST, BIRTH, NUMBER = "Mühlmann", "Erika", date(1950, 2, 12), "MRN-4711"
SECRETS = (
    "Mühlmann", "Muhlmann", "hlmann", "Erika", "MRN-4711", "19500212", "1950-02-12", "12.02.1950", "1950, 2, 12",
)  # fmt: skip
Pixels = NDArray[Any]


def scan_stack(count: int, height: int = 48, width: int = 64, first: int = 70) -> NDArray[np.uint8]:
    """(count, height, width) 8-bit B-scans, others for each `first`."""
    return np.stack([scan_pixels(first + n, height, width) for n in range(count)])


def write_all(folder: Path) -> dict[str, Path]:
    """One small file of every format that is built here, by its extension, with pictures of its own."""
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    stacks = iter([scan_stack(3, first=100 * n) for n in range(1, 9)])

    def deep() -> NDArray[np.uint16]:
        return next(stacks).astype(np.uint16) * 100

    write_vol(folder / "a.vol", reflectance(next(stacks)))
    eyes = [Series(n, n, "RL"[n], reflectance(next(stacks))) for n in (0, 1)]
    write_e2e(folder / "a.e2e", eyes)
    write_topcon(folder / "a.fda", "@IMG_MOT_COMP_03", deep())
    write_topcon(folder / "a.fds", "@IMG_SCAN_03", deep())
    write_img(folder / "a.img", scan_stack(1, 1024, 512))
    write_bioptigen(folder / "a.oct", deep())
    write_dicom(folder / "a.dcm", next(stacks))
    savemat(folder / "a.mat", {"images": next(stacks).transpose(1, 2, 0)}, do_compression=True)
    return {path.suffix: path for path in sorted(folder.iterdir())}


def reflectance(stack: Pixels) -> NDArray[np.float32]:
    """Heidelberg's raw values of shown levels, with the 10 bits of mantissa that its files keep."""
    raw = np.exp(stack / 255 * 8.285 - 8.3).astype(np.float32) - np.float32(2.44e-4)
    bits = np.maximum(raw, 0).view(np.uint32) & 0xFFFFE000
    return bits.view(np.float32)


def ufloat16(values: Pixels) -> NDArray[np.uint16]:
    """Values of 0 to 1 with 10 bits of mantissa as Heidelberg's 16-bit floats; the largest float as 0xFFFF."""
    bits = np.ascontiguousarray(values, "<f4").view(np.uint32)
    exponent = (bits >> 23).astype(np.int64) - 127 + 63
    words = np.where(exponent > 0, (exponent << 10) | ((bits >> 13) & 1023), 0)
    return np.where(values >= 2, 0xFFFF, words).astype("<u2")


class Series:
    """One series of an .e2e: the file's ids of patient and series, eye, (n, height, width) reflectances."""

    def __init__(self, patient: int, number: int, eye: str, values: Pixels, mrn: str = NUMBER) -> None:
        self.patient, self.number, self.eye, self.values, self.mrn = patient, number, eye, values, mrn


def write_e2e(path: Path, series: Sequence[Series], *, lead: int = 0, per_directory: int = 6) -> Path:
    """Directories in a chain, as HEYEX has them (there of 512 entries); the fundus stands between."""
    chunks = [chunk for one in series for chunk in _e2e_chunks(one)]
    groups = [chunks[at : at + per_directory] for at in range(0, len(chunks), per_directory)]
    body, before, position = b"", 0, 36 + 52
    for group in groups:
        at, begin = position, position + 52 + 44 * per_directory
        entries = contents = b""
        for ids, index, kind, content in group:
            start = begin + len(contents)
            size = len(content)
            entries += struct.pack("<IIII3IiHHII", at, start, size, 0, *ids, index, 0, kind, 0)
            contents += b"MDbData".ljust(12, b"\0") + struct.pack("<5I", 0, 0, at, size, 0)
            contents += struct.pack("<3IiHHII", *ids, index, 0, kind, 0) + content
        entries = entries.ljust(44 * per_directory, b"\0")
        body += _e2e_head(b"MDbDir") + struct.pack("<4I", per_directory, at, before, 0) + entries + contents
        before, position = at, begin + len(contents)
    whole = (
        _e2e_head(b"CMDb") + _e2e_head(b"MDbMDir") + struct.pack("<4I", per_directory, before, 0, 0) + body
    )
    path.write_bytes(b"E2EMultipleVolumeFile".ljust(lead, b"\0")[:lead] + whole)
    return path


def _e2e_head(magic: bytes) -> bytes:
    return magic.ljust(12, b"\0") + struct.pack("<I9HH", 100, *(9 * [0xFFFF]), 0)


def _e2e_chunks(one: Series) -> list[tuple[tuple[int, ...], int, int, bytes]]:
    """(patient, study, series, slice), index, kind, content."""
    birth = (BIRTH.toordinal() + 1_721_425 + 14_558_805) * 64
    person = FIRST.encode().ljust(31, b"\0") + NAME.encode("latin-1").ljust(66, b"\0")
    person += struct.pack("<I", birth) + b"F" + one.mrn.encode("latin-1").ljust(25, b"\0") + bytes(4)
    own = (one.patient, 1, one.number)
    found = [
        ((one.patient, 0xFFFFFFFF, 0xFFFFFFFF, -1), 0, 9, person),
        ((*own, -1), 0, 11, bytes(14) + one.eye.encode() + bytes(12)),
        ((*own, 0), 0, 0x40000000, struct.pack("<5I", 16, 33620481, 16, 4, 4) + bytes(range(16))),
    ]
    for place, values in reversed(list(enumerate(one.values))):  # not in the order of the slices
        pixels = ufloat16(values)
        head = struct.pack("<5I", 2 * pixels.size, 35652097, pixels.size, *pixels.shape)
        found.append(((*own, 2 * place), 1, 0x40000000, head + pixels.tobytes()))
    return found


def write_vol(path: Path, values: Pixels, eye: str = "OD") -> Path:
    """HSF-OCT: header of 2048 bytes, no fundus, B-scans of 32-bit floats."""
    count, height, width = values.shape
    head = b"HSF-OCT-103\0" + struct.pack(
        "<3I3d2I2dId", width, count, height, 0.01, 0.1, 0.004, 0, 0, 1, 1, 0, 0
    )
    head += eye.encode().ljust(4, b"\0") + struct.pack("<QiI", 132_000_000_000_000_000, 3, 256) + bytes(32)
    days = (BIRTH - date(1899, 12, 30)).days
    head += struct.pack("<I", 77) + NUMBER.encode().ljust(24, b"\0") + struct.pack("<dI", days, 1) + bytes(24)
    head += struct.pack("<d4I", 43_000.0, 0, 0, 0, 0) + bytes(34)
    scans = b"".join(
        b"HSF-BS-103\0\0" + struct.pack("<I4d2IfI6f", 256, 0, 0, 1, 0, 0, 256, 30, 0, *(6 * [0.0])) + bytes(168)
        + scan.astype("<f4").tobytes()
        for scan in values
    )  # fmt: skip
    path.write_bytes(head.ljust(2048, b"\0") + scans)
    return path


def write_topcon(
    path: Path, chunk: str, stack: Pixels, *, number: str = NUMBER, eye: int = 1, longer: bool = False
) -> Path:
    """.fda or .fds: person, capture (0: right eye), thumbnail, then the B-scans in the chunk of this name.

    `longer`: UOCTE's layout of @IMG_MOT_COMP_03.
    """
    count, height, width = stack.shape
    if chunk == "@IMG_JPEG":
        picture = struct.pack("<B6I", 2, 1, 1, width, height, count, 2562)
        for one in stack:
            buffer = io.BytesIO()
            Image.fromarray(one).save(buffer, "JPEG2000", irreversible=False)
            picture += struct.pack("<I", buffer.tell()) + buffer.getvalue()
    else:
        shape = struct.pack("<BIIII", 2, width, height, 8 * stack.itemsize, count)
        picture = shape + bytes(17 if longer else 1) + struct.pack("<I", stack.nbytes) + stack.tobytes()
    person = number.encode("latin-1").ljust(32, b"\0") + FIRST.encode().ljust(32, b"\0")
    person += NAME.encode("latin-1").ljust(32, b"\0") + bytes(8) + b"\2"
    person += struct.pack("<3H", BIRTH.year, BIRTH.month, BIRTH.day) + bytes(504)
    chunks = {
        "@PATIENT_INFO_02": person,
        "@CAPTURE_INFO_02": struct.pack("<BBI", eye, 2, 0) + bytes(100 + 12),  # the date is wiped out
        "@THUMBNAIL": struct.pack("<I", 3) + b"xyz",
        chunk: picture,
    }
    body = b"".join(
        bytes([len(name)]) + name.encode() + struct.pack("<I", len(content)) + content
        for name, content in chunks.items()
    )
    path.write_bytes(b"FOCTFDA" + struct.pack("<II", 2, 1000) + body + b"\0")
    return path


def write_img(path: Path, stack: NDArray[np.uint8]) -> Path:
    """Cirrus: (n, 1024, width), the last B-scan first, upside down and mirrored."""
    path.write_bytes(stack[::-1, ::-1, ::-1].tobytes())
    return path


def write_bioptigen(path: Path, stack: Pixels, *, scans: int | None = None) -> Path:
    """.OCT: named fields, then a frame for each B-scan, its A-scans one after the other."""
    count, height, width = stack.shape
    each = scans or count

    def field(name: str, data: bytes) -> bytes:
        return struct.pack("<I", len(name)) + name.encode() + struct.pack("<I", len(data)) + data

    def whole(name: str, value: int) -> bytes:
        return field(name, struct.pack("<I", value))

    def real(name: str) -> bytes:
        return field(name, struct.pack("<d", 1.0))

    head = struct.pack("<IH", 0xBEEF, 1) + field("FRAMEHEADER", b"") + whole("FRAMECOUNT", count)
    head += whole("LINECOUNT", width) + whole("LINELENGTH", height) + whole("SAMPLEFORMAT", 2)
    head += field("DESCRIPTION", f"{FIRST} {NAME} {BIRTH:%d.%m.%Y}".encode())
    head += real("XMIN") + real("XMAX") + field("XCAPTION", b"x") + real("YMIN") + real("YMAX")
    head += field("YCAPTION", b"y") + whole("SCANTYPE", 1) + real("SCANDEPTH") + real("SCANLENGTH")
    head += real("AZSCANLENGTH") + real("ELSCANLENGTH") + real("OBJECTDISTANCE") + real("SCANANGLE")
    head += whole("SCANS", each) + whole("FRAMES", count // each) + whole("DOPPLERFLAG", 0)
    head += field("CONFIG", b"") + bytes(4)
    for scan in stack:
        head += field("FRAMEDATA", b"") + field(
            "FRAMEDATETIME", struct.pack("<8H", 2020, 1, 3, 2, 3, 4, 5, 6)
        )
        head += real("FRAMETIMESTAMP") + whole("FRAMELINES", width)
        head += field("FRAMESAMPLES", np.ascontiguousarray(scan.T).astype("<u2").tobytes()) + bytes(4)
    path.write_bytes(head)
    return path


def write_dicom(path: Path, stack: Pixels, modality: str = "OPT", **more: Any) -> Path:
    """A multi-frame file with the fields that must not get out."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        "1.2.840.10008.5.1.4.1.1.77.1.5.4",
        generate_uid(),
    )
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SpecificCharacterSet = "ISO_IR 100"
    file.PatientName, file.PatientID, file.PatientBirthDate = f"{NAME}^{FIRST}", NUMBER, f"{BIRTH:%Y%m%d}"
    file.AcquisitionDateTime = datetime(2020, 1, 2).strftime("%Y%m%d")
    file.Modality, file.ImageLaterality, file.NumberOfFrames = modality, "L", len(stack)
    file.Rows, file.Columns, file.SamplesPerPixel = stack.shape[1], stack.shape[2], 1
    file.PhotometricInterpretation, file.PixelRepresentation = "MONOCHROME2", 0
    file.BitsAllocated = file.BitsStored = 8 * stack.dtype.itemsize
    file.HighBit = file.BitsStored - 1
    file.PixelData = stack.tobytes()
    for name, value in more.items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
    return path
