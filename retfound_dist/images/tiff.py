"""Decodes TIFF and BigTIFF with tifffile and imagecodecs, because Pillow misreads more than 8 bit.

Pillow shows MinIsWhite of 12 and 16 bit and of floats as negatives, cuts 16-bit colour to its top byte, and
reads planar 16-bit colour as noise.
"""

from __future__ import annotations

import io
import logging
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.errors import ImageError
from retfound_dist.images.channels import (
    apply_orientation,
    blend_over_black,
    check_numbers,
    check_pixel_count,
    invert,
    scale_to_8_bit,
)

MAX_PAGES = 1000
"""Most pages that are counted."""
# Numbers of the TIFF 6.0 specification.
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WHITE, _BLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
"""Photometric interpretations."""
_READABLE = (_WHITE, _BLACK, _RGB, _PALETTE)
_OTHER_COLOURS = {
    4: "a mask",
    5: "CMYK, print colours",
    6: "YCbCr",
    8: "CIE Lab",
    9: "ICC Lab",
    10: "ITU Lab",
}
_JPEG_COMPRESSIONS = (6, 7)
"""Compressions."""
_ASSOCIATED, _UNASSOCIATED = 1, 2
"""Kinds of extra samples: colours are already multiplied by alpha, or not."""
_PLANAR = 2
"""Planar configuration: each channel is stored by itself."""
_ORIENTATION = 274


def is_tiff(data: bytes) -> bool:
    """Whether these bytes begin as a TIFF does."""
    return data[:4] in _MAGIC


def decode(data: bytes) -> NDArray[np.uint8]:
    """Upright 8-bit pixels, (H, W) or (H, W, 3); ImageError says why a file cannot be read correctly."""
    # Here and not above: every command would pay for this import, and most sets have no TIFF.
    import tifffile

    # tifffile logs an error before it raises it: each bad file would be reported twice.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            return _decode_page(_only_page(file), len(data))
    except ImageError:
        raise
    except Exception as error:
        # Damaged files make the codecs raise anything.
        message = (str(error).splitlines() or [""])[0][:160]
        raise ImageError(f"is a TIFF that cannot be read ({message or type(error).__name__})") from error


def _only_page(file: Any) -> Any:
    """The only full picture; reduced copies and masks beside it do not count."""
    pages, seen_offsets = [], set[int]()
    for page in islice(file.pages, MAX_PAGES):
        # A directory that points back to an earlier one would be followed forever.
        if page.offset in seen_offsets:
            raise ImageError("is a TIFF whose directories form a loop")
        seen_offsets.add(page.offset)
        pages += [] if page.is_reduced or page.is_mask else [page]
    frames = len(pages)
    # ImageJ and others store a stack behind one directory: a plain reader would see its first slice only.
    if frames == 1:
        sizes = [series.size for series in file.series if series.keyframe is pages[0]]
        frames = max(int(pages[0].imagedepth), *(size // max(1, pages[0].size) for size in sizes), 1)
    if frames != 1:
        several = f"{frames}" if frames < MAX_PAGES else f"{MAX_PAGES:,} or more"
        raise ImageError(f"holds {several} pages: save one image a file")
    return pages[0]


def _decode_page(page: Any, file_bytes: int) -> NDArray[np.uint8]:
    """A page as upright 8-bit pixels, (H, W) or (H, W, 3); ImageError where that is not possible."""
    check_pixel_count(page.imagelength, page.imagewidth)
    photometric = int(page.photometric)
    if not (
        photometric in _READABLE or (photometric == _YCBCR and int(page.compression) in _JPEG_COMPRESSIONS)
    ):
        name = _OTHER_COLOURS.get(photometric, f"photometric interpretation {photometric}")
        raise ImageError(f"is a TIFF of another colour space ({name}): save it as grey or RGB")
    _check_complete(page, file_bytes)
    values, extra = _samples(page, 3 if photometric in (_RGB, _YCBCR) else 1)
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    if photometric == _PALETTE:
        values = _apply_palette(values, page.colormap)
        bits = 8
    if photometric == _WHITE:
        values = invert(values, bits if bits <= 8 else 0)
    for kind, alpha in zip(page.extrasamples, extra, strict=False):
        if int(kind) == _UNASSOCIATED:
            values = blend_over_black(values, alpha)
    tag = page.tags.get(_ORIENTATION)
    return apply_orientation(scale_to_8_bit(values, bits), int(tag.value) if tag else 1)


def _check_complete(page: Any, file_bytes: int) -> None:
    """ImageError where a strip or tile is not in the file: codecs would fill it with grey or zeros."""
    places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if not places or any(not size or start + size > file_bytes for start, size in places):
        raise ImageError("is a TIFF that is truncated or incomplete")


def _samples(page: Any, colours: int) -> tuple[NDArray[Any], list[NDArray[Any]]]:
    """(H, W) or (H, W, 3) samples, and (H, W) extra samples such as alpha."""
    array, number = page.asarray(), int(page.samplesperpixel)
    shape = (int(page.imagelength), int(page.imagewidth))
    if int(page.planarconfig) == _PLANAR:
        array = np.moveaxis(array.reshape(number, *shape), 0, -1)
    array = array.reshape(*shape, number)
    alphas = [kind for kind in page.extrasamples if int(kind) in (_ASSOCIATED, _UNASSOCIATED)]
    if number < colours or (colours == 1 and number != 1 + len(alphas)):
        raise ImageError(f"is a TIFF of {number} channels without their meaning: save it as grey or RGB")
    check_numbers(array)
    values = array[..., 0] if colours == 1 else array[..., :colours]
    return values, [array[..., place] for place in range(colours, number)]


def _apply_palette(indices: NDArray[Any], table: NDArray[Any] | None) -> NDArray[np.uint8]:
    if table is None or indices.dtype.kind not in "ub" or int(indices.max(initial=0)) >= table.shape[1]:
        raise ImageError("is a TIFF whose palette does not fit its pixels: save it as grey or RGB")
    # The specification says 16 bits; old writers fill the lower 8 only.
    levels = table if table.max() < 256 else table >> 8
    return np.ascontiguousarray(np.moveaxis(levels.astype(np.uint8)[:, indices.astype(np.intp)], 0, -1))
