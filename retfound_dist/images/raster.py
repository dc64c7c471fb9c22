"""Decodes PNG, BMP, WebP, GIF, JPEG 2000 and PBM/PGM/PPM.

With Pillow, and with imagecodecs where Pillow would cut 16-bit samples to 8 bit.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from retfound_dist.errors import ImageError
from retfound_dist.images.channels import (
    MAX_PIXELS,
    apply_orientation,
    blend_over_black,
    check_pixel_count,
    scale_to_8_bit,
)

FORMATS = ("PNG", "BMP", "WEBP", "GIF", "JPEG2000", "PPM")
"""Pillow's names of the formats. JPEG and TIFF are not among them: `jpeg.py` and `tiff.py` read those."""
_ORIENTATION = 0x0112
_GREY_ALPHA, _RGB, _RGB_ALPHA = 4, 2, 6
"""PNG's colour types."""
_NETPBM_SPACE = rb"\s+(?:#[^\n]*\n\s*)*"
_NETPBM = re.compile(rb"P([2356])" + 3 * (_NETPBM_SPACE + rb"(\d+)") + rb"\s")
"""Kind, width, height and largest value of a PGM (2, 5) or PPM (3, 6); 5 and 6 are binary."""
_OTHER_FILES = (
    (b"%PDF", "a PDF: export the images from it"),
    (b"PK\3\4", "a zip archive: unpack it"),
    (b"\0asm", "not an image"),
    (b"\x89HDF", "an HDF5 file: export the images from it"),
    (b"\x93NUMPY", "a NumPy array: save it as PNG or TIFF"),
    (b"\xff\x0a", "a JPEG XL image: save it as PNG"),
    (b"8BPS", "a Photoshop file: save it as PNG or TIFF"),
)
# `warnings.catch_warnings` changes a list of the whole process. Two threads that leave it in another order
# than they entered it would leave warnings switched off for good.
_open_lock = threading.Lock()


def decode(data: bytes) -> NDArray[np.uint8]:
    """Upright 8-bit pixels, (H, W) or (H, W, 3); ImageError says why a file cannot be read correctly."""
    try:
        image, orientation = _open(data)
        if _is_deep_colour(image, data):
            return apply_orientation(_decode_deep(image, data), orientation)
        return apply_orientation(_to_8_bit(image), orientation)
    except ImageError:
        raise
    except Exception as error:
        # Damaged bytes make decoders raise anything: SyntaxError, struct.error, zlib.error, MemoryError.
        message = (str(error).splitlines() or [""])[0][:160]
        raise ImageError(f"is an image that cannot be read ({message or type(error).__name__})") from error


def _open(data: bytes) -> tuple[Image.Image, int]:
    """The image, with only its header read, and its orientation."""
    with _open_lock, warnings.catch_warnings():
        # Pillow warns of large sizes, which are refused here anyway, and of EXIF that it does not understand.
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            raise ImageError(_not_image_reason(data)) from None
        except Image.DecompressionBombError:
            raise ImageError(f"has more than {MAX_PIXELS:,} pixels") from None
        check_pixel_count(image.height, image.width)
        pages = int(getattr(image, "n_frames", 1))
        if pages > 1:
            raise ImageError(f"holds {pages} pages: save one image a file")
        return image, int(image.getexif().get(_ORIENTATION, 1) or 1)


def _not_image_reason(data: bytes) -> str:
    """Why these bytes are not an image, in words that help to find the error."""
    if not data:
        return "is empty (0 bytes)"
    if data[128:132] == b"DICM":
        return 'is a DICOM file: pack it with source.kind="device"'
    if data[:512].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page or XML, not an image: download it again"
    for begin, name in _OTHER_FILES:
        if data.startswith(begin):
            return f"is {name}"
    return "is not a JPEG, PNG, TIFF, BMP, WebP, GIF, JPEG 2000 or PBM/PGM/PPM image"


def _is_deep_colour(image: Image.Image, data: bytes) -> bool:
    """Whether Pillow would cut samples of more than 8 bit; ImageError where nothing else can read them."""
    # Bytes 24 and 25 of a PNG are depth and colour type. 16-bit grey is not in the list: Pillow reads it
    # whole.
    if image.format == "PNG":
        return data[24] == 16 and data[25] in (_RGB, _GREY_ALPHA, _RGB_ALPHA)
    if image.format == "PPM":
        _check_netpbm(data)
    return image.format == "JPEG2000"


def _check_netpbm(data: bytes) -> None:
    """ImageError where Pillow would cut colour to 8 bit, or read only the first of several pictures."""
    header = _NETPBM.match(data)
    if not header:
        return
    kind, *numbers = (int(text) for text in header.groups())
    width, height, largest = numbers
    if kind in (3, 6) and largest > 255:
        raise ImageError("is a PPM of more than 8 bit: save it as 16-bit PNG or TIFF")
    picture = width * height * (3 if kind == 6 else 1) * (2 if largest > 255 else 1)
    if kind in (5, 6) and data[header.end() + picture :].lstrip().startswith(b"P"):
        raise ImageError("holds several pages: save one image a file")


def _decode_deep(image: Image.Image, data: bytes) -> NDArray[np.uint8]:
    import imagecodecs

    return _over_black(imagecodecs.png_decode(data) if image.format == "PNG" else deep_jpeg2000(data))


def deep_jpeg2000(data: bytes) -> NDArray[Any]:
    """Samples of a JPEG 2000 in the depth in which they are stored; ImageError."""
    import imagecodecs

    try:
        return np.asarray(imagecodecs.jpeg2k_decode(data))
    except Exception as error:
        raise ImageError(f"is a JPEG 2000 image that cannot be read ({error})") from error


def _over_black(values: NDArray[Any]) -> NDArray[np.uint8]:
    """8-bit pixels of (H, W) or (H, W, 1 to 4) samples of any depth. Of 2 or 4 channels the last is alpha."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    if values.ndim == 2 or channels in (1, 3):
        return scale_to_8_bit(values.reshape(values.shape[:2]) if channels == 1 else values)
    if channels not in (2, 4):
        raise ImageError(f"has {channels} channels: save it as grey or RGB")
    shown = values[..., 0] if channels == 2 else values[..., :3]
    return scale_to_8_bit(blend_over_black(shown, values[..., -1]))


def _to_8_bit(image: Image.Image) -> NDArray[np.uint8]:
    """8-bit pixels (H, W) or (H, W, 3) of an image that Pillow reads in its full depth."""
    transparent = image.info.get("transparency")
    if image.mode.startswith("I") or image.mode == "F":
        values = np.array(image)
        # PNG's tRNS: one grey level of the file is transparent, which is black here.
        if isinstance(transparent, int):
            values[values == transparent] = 0
        return scale_to_8_bit(values)
    if image.mode == "CMYK":
        raise ImageError("is a CMYK image (print colours): save it as grey or RGB")
    if transparent is not None or image.mode in ("LA", "PA", "La", "RGBA", "RGBa"):
        return _over_black(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
