"""DICOM files changed and compressed for the tests, and their pixels read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate

from shards.images.preparation import from_pixels
from shards.sources.devices.volume_formats import read_volumes
from tests.shards.device_files import scan_stack

STACK = scan_stack(3)
DEEP = STACK.astype(np.uint16)


def read(path: Path) -> NDArray[np.uint8]:
    """(n, H, W) of a file with one volume."""
    (volume,) = read_volumes(str(path))
    return np.stack([from_pixels(scan) for scan in volume.slices])


def change(path: Path, **more: Any) -> Path:
    """Set fields of a file; None takes one out."""
    file = dcmread(path)
    for name, value in more.items():
        if value is None:
            del file[name]
        else:
            setattr(file, name, value)
    file.save_as(path)
    return path


def scaled_like(stack: NDArray[Any]) -> NDArray[np.float64]:
    return np.clip(stack * (255 / np.percentile(stack, 99.9)), 0, 255)


def compressed(path: Path, syntax: str, frames: list[bytes], **more: Any) -> Path:
    """A file whose pixels are these streams."""
    file = dcmread(path)
    file.file_meta.TransferSyntaxUID = uid.UID(syntax)
    file.PixelData = encapsulate(frames)
    file["PixelData"].is_undefined_length = True
    for name, value in more.items():
        setattr(file, name, value)
    file.save_as(path)
    return path


def jpeg_frames(stack: NDArray[Any], **options: Any) -> list[bytes]:
    return [bytes(imagecodecs.jpeg8_encode(frame, level=95, **options)) for frame in stack]


def streams(stack: NDArray[Any], kind: str) -> list[bytes]:
    bits = 8 * stack.dtype.itemsize if kind != "extended" else 12
    make: dict[str, Any] = {
        "extended": lambda f: imagecodecs.jpeg8_encode(f, level=97, bitspersample=bits),
        "lossless": lambda f: imagecodecs.jpeg8_encode(f, lossless=True, bitspersample=bits),
        "ls": imagecodecs.jpegls_encode,
        "j2k": lambda f: imagecodecs.jpeg2k_encode(f, level=0, reversible=True, codecformat="j2k"),
    }
    return [bytes(make[kind](frame)) for frame in stack]
