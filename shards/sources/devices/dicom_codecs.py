"""Registers imagecodecs as a decoder of pydicom: JPEG-LS, 12-bit and lossless JPEG, JPEG 2000, HTJ2K.

pydicom itself reads plain, deflated and RLE data, and 8-bit JPEG through Pillow. Its usual decoder for the
other kinds, pylibjpeg-libjpeg, is under the GPL; imagecodecs is under a BSD licence.

pydicom requires `is_available` and `DECODER_DEPENDENCIES` in the module of a plugin.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from retfound_dist.errors import DataError

NAME = "imagecodecs"
_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG = ("1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
"""Extended (12 bit), lossless, lossless of first-order prediction."""
_JPEG2000 = (
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    *(f"1.2.840.10008.1.2.4.{number}" for number in (201, 202, 203)),
)
_PYDICOMS_OWN = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5")
"""8-bit JPEG (through Pillow) and RLE."""
DECODER_DEPENDENCIES = dict.fromkeys((*_LS, *_JPEG, *_JPEG2000), (NAME,))


def is_available(uid: str) -> bool:
    """Whether a transfer syntax is read here."""
    return uid in DECODER_DEPENDENCIES


def register_plugin(syntax: Any) -> str:
    """Register the plugin for a compressed transfer syntax; returns its name, empty for pydicom's own.

    DataError for a transfer syntax that is not supported."""
    from pydicom.pixels.decoders.base import get_decoder

    if syntax in _PYDICOMS_OWN:
        return ""
    if not is_available(syntax):
        raise DataError(
            f"is compressed as {syntax.name}, which is not supported: convert it to JPEG 2000 or no "
            "compression (dcmdjpeg, gdcmconv --raw)"
        )
    # pydicom has one decoder per syntax for the whole process, so the plugin is added only once.
    decoder = get_decoder(syntax)
    if NAME not in decoder.available_plugins:
        decoder.add_plugin(NAME, (__name__, "decode_frame"))
    return NAME


def decode_frame(src: bytes, runner: Any) -> bytes:
    """Returns one frame's samples, colour by pixel, and sets their width for pydicom."""
    import imagecodecs

    syntax = runner.transfer_syntax
    if syntax in _LS:
        samples = imagecodecs.jpegls_decode(src)
    elif syntax in _JPEG2000:
        samples = imagecodecs.jpeg2k_decode(src)
        if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):  # the codec has converted it to RGB
            runner.set_option("photometric_interpretation", "RGB")
    else:
        samples = imagecodecs.jpeg8_decode(src)
    if samples.size != runner.rows * runner.columns * runner.samples_per_pixel:
        raise ValueError(f"a frame of {samples.shape}, which is not the size in the header")
    # imagecodecs returns 12-bit samples in 16 bits. pydicom splits the bytes by this width.
    runner.set_option("bits_allocated", 8 * samples.dtype.itemsize)
    runner.set_option("planar_configuration", 0)
    return np.ascontiguousarray(samples).tobytes()
