"""Image files of many kinds, each made from the same small grey scan."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image


def scan(seed: int = 0, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """(H, W) with a bright curved band and speckle, of all levels from 0 to 255."""
    rng = np.random.default_rng(seed)
    rows, columns = np.arange(height)[:, None] / height, np.arange(width)[None] / width
    middle = 0.4 + 0.15 * np.sin(2 * np.pi * (columns * rng.uniform(0.5, 1.5) + rng.uniform()))
    levels = (15 + 170 * np.exp(-(((rows - middle) / 0.12) ** 2))) * rng.gamma(6, 1 / 6, (height, width))
    pixels = np.clip(levels, 0, 255).astype(np.uint8)
    pixels[0, 0], pixels[-1, :] = 0, 255
    return pixels


def tiff(pixels: NDArray[Any], **options: Any) -> bytes:
    """By tifffile."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def saved(image: Image.Image | NDArray[Any], kind: str, **options: Any) -> bytes:
    """By Pillow."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def channels(*planes: NDArray[Any]) -> NDArray[Any]:
    """(H, W, C)."""
    return np.stack(planes, axis=-1)


def rgb(pixels: NDArray[Any]) -> NDArray[Any]:
    """(H, W, 3), grey."""
    return channels(pixels, pixels, pixels)


def deep_png(pixels: NDArray[np.uint16]) -> bytes:
    """16-bit PNG of 1 to 4 channels."""
    return bytes(imagecodecs.png_encode(pixels))


def exif(orientation: int) -> Image.Exif:
    """EXIF data that only turn the picture."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@cache
def grey_files() -> dict[str, bytes]:
    """Files that lose nothing and all show `scan()`."""
    pixels = scan()
    deep = pixels.astype(np.uint16)
    full = np.full_like(deep, 65535)
    palette = Image.fromarray(pixels).convert("P")
    white = {"photometric": "miniswhite"}
    return {
        "png": saved(pixels, "PNG"),
        "png rgb": saved(rgb(pixels), "PNG"),
        "png la": saved(channels(pixels, np.full_like(pixels, 255)), "PNG"),
        "png palette": saved(palette, "PNG"),
        "png 12 in 16": deep_png(deep * 16),
        "png 12 in 16 la": deep_png(channels(deep * 16, full)),
        "png 12 in 16 rgb": deep_png(rgb(deep * 16)),
        "png 12 in 16 rgba": deep_png(channels(*[deep * 16] * 3, full)),
        "png 16 rgb": deep_png(rgb(deep * 257)),
        "jpeg without loss": bytes(imagecodecs.jpeg8_encode(pixels, lossless=True)),
        "bmp": saved(pixels, "BMP"),
        "gif": saved(pixels, "GIF"),
        "webp": saved(rgb(pixels), "WEBP", lossless=True),
        "pgm": saved(pixels, "PPM"),
        "ppm": saved(rgb(pixels), "PPM"),
        "pgm 12": b"P5 64 48 4095\n" + (deep * 16).astype(">u2").tobytes(),
        "jp2": bytes(imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True)),
        "jp2 rgb 12": bytes(imagecodecs.jpeg2k_encode(rgb(deep * 16), level=0, reversible=True)),
        "tiff": tiff(pixels),
        "tiff rgb": tiff(rgb(pixels), photometric="rgb"),
        "tiff planar": tiff(np.moveaxis(rgb(pixels), -1, 0), photometric="rgb", planarconfig="separate"),
        "tiff planar 16": tiff(
            np.moveaxis(rgb(deep * 257), -1, 0), photometric="rgb", planarconfig="separate"
        ),
        "tiff rgb 16": tiff(rgb(deep * 257), photometric="rgb"),
        "tiff rgb 12 in 16": tiff(rgb(deep * 16), photometric="rgb"),
        "tiff 12 packed": tiff(deep * 16, bitspersample=12),
        "tiff uint32": tiff(pixels.astype(np.uint32) * 1000),
        "tiff signed": tiff(pixels.astype(np.int16) * 100 - 12000),
        "tiff float": tiff(pixels.astype(np.float32) / 255),
        "tiff double": tiff(pixels.astype(np.float64)),
        "tiff big-endian": tiff(deep.astype(">u2") * 257, byteorder=">"),
        "tiff big": tiff(pixels, bigtiff=True),
        "tiff tiled": tiff(pixels, tile=(16, 16)),
        "tiff lzw": tiff(pixels, compression="lzw", predictor=True),
        "tiff deflate": tiff(deep * 16, compression="zlib", predictor=True),
        "tiff packbits": tiff(pixels, compression="packbits"),
        "tiff zstd": saved(rgb(pixels), "TIFF", compression="zstd"),
        "tiff palette": saved(palette, "TIFF"),
        "tiff white 8": tiff(255 - pixels, **white),
        "tiff white 12": tiff(4095 - deep * 16, **white),
        "tiff white 16": tiff(65535 - deep * 257, **white),
        "tiff white 16 big-endian": tiff((65535 - deep * 257).astype(">u2"), byteorder=">", **white),
        "tiff white float": tiff(1 - pixels.astype(np.float32) / 255, **white),
        "tiff white float levels": tiff(255 - pixels.astype(np.float32), **white),
        "tiff alpha": tiff(channels(pixels, np.full_like(pixels, 255)), extrasamples=["unassalpha"]),
        "tiff rgb and something": tiff(
            channels(pixels, pixels, pixels, pixels), photometric="rgb", extrasamples=["unspecified"]
        ),
        "tiff preview": with_preview(pixels),
    }


def with_preview(pixels: NDArray[np.uint8]) -> bytes:
    """A TIFF whose second page is a reduced copy of the first."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(pixels, metadata=None)
        writer.write(np.ascontiguousarray(pixels[::2, ::2]), subfiletype=1, metadata=None)
    return buffer.getvalue()
