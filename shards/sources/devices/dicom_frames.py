"""Decodes the pixel data of a DICOM file into frames of the stored depth, with black at the lowest value."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.errors import DataError, ImageError
from retfound_dist.images import jpeg
from retfound_dist.images.channels import invert
from shards.sources.devices import dicom_codecs

Frames = NDArray[Any]
_JPEG, _JPEG2000 = b"\xff\xd8", b"\xff\x4f"
"""First bytes of compressed frames."""
_END = b"\xff\xd9"
"""Last bytes of compressed frames."""


def read_frames(file: Any) -> Frames:
    """Returns (n, H, W) grey or (n, H, W, 3) colour; DataError if a frame is incomplete or unreadable."""
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    if int(file.get("BitsAllocated", 8)) == 1:
        raise DataError("has pixels of 1 bit, so it is a mask and not a scan: remove it")
    count = int(file.get("NumberOfFrames", 1) or 1)
    compressed = file.file_meta.TransferSyntaxUID.is_encapsulated
    plugin = dicom_codecs.register_plugin(file.file_meta.TransferSyntaxUID) if compressed else ""
    (_check_compressed if compressed else _check_native)(file, count)
    pixels = pixel_array(file, decoding_plugin=plugin)
    colours = file.get("PhotometricInterpretation", "")
    if int(file.get("SamplesPerPixel", 1)) == 1:
        frames = pixels.reshape(count, *pixels.shape[-2:])
        if colours == "PALETTE COLOR":
            return _eight_bits(apply_color_lut(frames, file)[..., :3])
        return _normalize_grey(frames, file, inverted=(colours == "MONOCHROME1") != _falls(file))
    return _fill_depth(pixels.reshape(count, *pixels.shape[-3:]), file)


def _normalize_grey(frames: Frames, file: Any, *, inverted: bool) -> Frames:
    """Returns grey frames with the padding in the darkest level, over the full depth."""
    # Before inverting, because the padding value is a stored value.
    padded = frames == file.PixelPaddingValue if _has_padding(file, frames) else None
    if inverted:
        frames = invert(frames, int(file.get("BitsStored", 0) or 0))
    if padded is not None and not padded.all():
        # Without this, a padding of -32,000 would take most of the 256 levels after scaling.
        frames = np.where(padded, frames[~padded].min(), frames)
    return _fill_depth(frames, file)


def _has_padding(file: Any, frames: Frames) -> bool:
    return frames.dtype.kind in "iu" and isinstance(file.get("PixelPaddingValue"), int)


def _fill_depth(frames: Frames, file: Any) -> Frames:
    """Widens frames of fewer than 8 bits to 16, so that they are scaled like deeper ones."""
    is_shallow = frames.dtype == np.uint8 and int(file.get("BitsStored", 8) or 8) < 8
    return frames.astype(np.uint16) if is_shallow else frames


def _eight_bits(colours: Frames) -> Frames:
    """Converts entries of a palette to 8 bits. Entries of 16 bits may use only the lower 8."""
    return colours.astype(np.uint8) if colours.max(initial=0) < 256 else (colours >> 8).astype(np.uint8)


def _falls(file: Any) -> bool:
    """Whether the rescale slope is negative, so that high values are dark."""
    slopes = [file.get("RescaleSlope")]
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (file.get(name) or ())[:1]:
            values = group.get("PixelValueTransformationSequence") or ()
            slopes += [item.get("RescaleSlope") for item in values]
    return any(slope is not None and float(slope) < 0 for slope in slopes)


def _check_native(file: Any, count: int) -> None:
    """Raises DataError unless the pixel data are those of `count` frames. pydicom ignores surplus frames."""
    name = next(n for n in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if n in file)
    bits = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}.get(name, int(file.get("BitsAllocated", 8)))
    samples = int(file.Rows) * int(file.Columns) * int(file.get("SamplesPerPixel", 1))
    frame = ceil(samples * bits / 8)
    # Two pixels share their colour, so two pixels have four samples and not six.
    if file.get("PhotometricInterpretation") == "YBR_FULL_422":
        frame = frame * 2 // 3
    byte_count = len(file[name].value or b"")
    if byte_count < frame * count or byte_count >= frame * (count + 1):
        raise DataError(
            f"holds {byte_count:,} bytes of pixels, {byte_count / frame:.4g} frames of "
            f"{file.Columns}x{file.Rows}, but NumberOfFrames is {count}: export it again"
        )


def _check_compressed(file: Any, count: int) -> None:
    """Raises DataError unless each frame is one complete stream. Some decoders fill gaps or skip frames."""
    from pydicom.encaps import generate_fragments, generate_frames, parse_basic_offsets

    data = file.PixelData
    table = parse_basic_offsets(data)
    fragments = list(generate_fragments(data[8 + 4 * len(table) :]))
    extended = file.get("ExtendedOffsetTable"), file.get("ExtendedOffsetTableLengths")
    offsets = extended if all(extended) else None
    # A frame may consist of several fragments. Only fragments that begin a stream count.
    begun = sum(fragment[:2] in (_JPEG, _JPEG2000) for fragment in fragments)
    frame_count = max(begun, len(table)) or len(fragments)
    if frame_count != count:
        raise DataError(
            f"holds {frame_count} compressed frames, but NumberOfFrames is {count}: export it again"
        )
    colours = "GRAY" if int(file.get("SamplesPerPixel", 1)) == 1 else "RGB"
    frames = generate_frames(data, number_of_frames=count, extended_offsets=offsets)
    for number, frame in enumerate(frames, start=1):
        _check_stream(frame, colours, f"{number} of {count}")


def _check_stream(frame: bytes, colours: str, place: str) -> None:
    """Decodes an 8-bit JPEG strictly; of other streams checks only the end."""
    if frame[:2] not in (_JPEG, _JPEG2000):
        return
    if not frame.rstrip(b"\0").endswith(_END):
        raise DataError(f"is cut short in frame {place}: export it again")
    if frame[:2] == _JPEG and jpeg.bits_per_sample(frame) == 8:
        try:
            jpeg.decode(frame, colours)
        except ImageError as error:
            raise DataError(f"has a frame ({place}) that {error}") from error
