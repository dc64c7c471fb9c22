"""One decoder: what a file shows is what every command sees, or it is refused by name."""

from __future__ import annotations

import re
from functools import cache, partial
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from retfound_dist.config.schema import PackImage
from retfound_dist.errors import ImageError
from retfound_dist.evaluate.pixels import gray_pixels as evaluate_pixels
from retfound_dist.images import jpeg
from retfound_dist.images.decoding import decode, decode_colour, decode_grey
from retfound_dist.stream import sample_reader
from shards.images.preparation import prepare_image
from tests.images.image_makers import channels, deep_png, exif, grey_files, rgb, saved, scan, tiff

PIXELS = scan()
STACK = np.stack([scan(n) for n in range(3)])
PNG = PackImage(format="png")


@pytest.mark.parametrize("kind", grey_files())
def test_every_lossless_file_shows_the_scan_it_was_made_from(kind: str) -> None:
    found = decode(grey_files()[kind])
    assert found.dtype == np.uint8
    assert found.shape == PIXELS.shape
    assert np.abs(found.astype(int) - PIXELS).max() <= 1, kind


def test_the_scan_may_lie_dark_in_a_small_part_of_16_bits() -> None:
    """10 bits in 16, in grey, with alpha and in colour: by one scale, which fills the 8 bits."""
    deep = PIXELS.astype(np.uint16) * 4
    full = np.full_like(deep, 65535)
    files = [deep_png(p) for p in (deep, channels(deep, full), rgb(deep), channels(deep, deep, deep, full))]
    files += [tiff(deep), tiff(rgb(deep), photometric="rgb")]
    for data in files:
        assert np.abs(decode(data).astype(int) - PIXELS).max() <= 1


def test_16_bit_colour_keeps_its_channels_apart_by_one_scale() -> None:
    colour = channels(PIXELS, PIXELS // 2, PIXELS // 4)
    for data in (
        deep_png(colour.astype(np.uint16) * 16),
        tiff(colour.astype(np.uint16) * 16, photometric="rgb"),
    ):
        found = decode(data).astype(float)
        assert found.shape == colour.shape
        ratio = found[..., 1].sum() / found[..., 0].sum()
        assert 0.48 < ratio < 0.52
        assert np.corrcoef(found.ravel(), colour.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("invert", [False, True])
def test_one_bit_is_black_and_white(invert: bool) -> None:
    shown = PIXELS > 60
    stored = ~shown if invert else shown
    data = tiff(stored, photometric="miniswhite" if invert else "minisblack")
    assert (decode(data) == shown * 255).all()
    if not invert:
        for kind in ("PNG", "PPM"):
            assert (decode(saved(shown, kind)) == shown * 255).all()
        for compression in ("group3", "group4"):
            assert (decode(saved(shown, "TIFF", compression=compression)) == shown * 255).all()


@pytest.mark.parametrize("turn", range(1, 9))
def test_all_eight_orientations_are_undone_in_every_format_that_has_them(turn: int) -> None:
    pixels, tags = scan(1, 40, 56), exif(turn)
    wanted = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.T,
        6: np.rot90(pixels, -1), 7: pixels[::-1, ::-1].T, 8: np.rot90(pixels),
    }[turn]  # fmt: skip
    assert (decode(saved(pixels, "PNG", exif=tags)) == wanted).all()
    assert (decode(saved(rgb(pixels), "WEBP", lossless=True, exif=tags)) == wanted).all()
    tag = [(274, 3, 1, turn, True)]
    assert (decode(tiff(pixels, extratags=tag)) == wanted).all()
    assert (decode(tiff(pixels.astype(np.uint16) * 257, extratags=tag)).astype(int) - wanted).max() <= 1
    assert (decode(deep_png_with_exif(pixels, turn)).astype(int) - wanted).max() <= 1
    plain = jpeg.decode(saved(pixels, "JPEG", quality=95), "GRAY")[..., 0]
    turned = {
        1: plain, 2: plain[:, ::-1], 3: plain[::-1, ::-1], 4: plain[::-1], 5: plain.T,
        6: np.rot90(plain, -1), 7: plain[::-1, ::-1].T, 8: np.rot90(plain),
    }[turn]  # fmt: skip
    data = saved(pixels, "JPEG", quality=95, exif=tags)
    assert (decode(data) == turned).all()
    assert (
        sample_reader.decode(data, True, lambda width, height: 5) == turned
    ).all()  # no rows of a turned picture


def deep_png_with_exif(pixels: NDArray[np.uint8], turn: int) -> bytes:
    """A 16-bit RGB PNG with an eXIf chunk after its header."""
    import struct
    import zlib

    whole, body = (
        deep_png(rgb(pixels.astype(np.uint16) * 257)),
        exif(turn).tobytes().removeprefix(b"Exif\0\0"),
    )
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    return whole[:33] + chunk + whole[33:]


def test_what_is_transparent_is_black_at_every_depth() -> None:
    alpha = np.full_like(PIXELS, 255)
    alpha[:, :20] = 0
    wanted = np.where(alpha > 0, PIXELS, 0)
    deep, clear = PIXELS.astype(np.uint16) * 257, alpha.astype(np.uint16) * 257
    palette = Image.fromarray(np.maximum(PIXELS, 1) * (alpha > 0))
    for data in (
        saved(channels(PIXELS, alpha), "PNG"),
        saved(channels(PIXELS, PIXELS, PIXELS, alpha), "PNG"),
        saved(channels(PIXELS, PIXELS, PIXELS, alpha), "WEBP", lossless=True),
        deep_png(channels(deep, clear)),
        deep_png(channels(deep, deep, deep, clear)),
        tiff(channels(PIXELS, PIXELS, PIXELS, alpha), photometric="rgb", extrasamples=["unassalpha"]),
        tiff(channels(deep, clear), photometric="minisblack", extrasamples=["unassalpha"]),
        saved(palette, "PNG", transparency=0),
    ):
        assert np.abs(decode(data).astype(int) - wanted).max() <= 1
    half = np.full_like(alpha, 128)
    premultiplied = tiff(channels(*[wanted] * 3, half), photometric="rgb", extrasamples=["assocalpha"])
    assert (decode(premultiplied) == wanted).all()
    with pytest.raises(ImageError, match="fully transparent"):
        decode(saved(channels(PIXELS, np.zeros_like(PIXELS)), "PNG"))


def test_a_palette_of_colours_is_looked_up() -> None:
    table = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    image = Image.fromarray(PIXELS)
    image.putpalette(table.tobytes())
    for kind in ("PNG", "GIF", "BMP"):
        assert (decode(saved(image, kind)) == table[PIXELS]).all()
    for factor in (257, 1):  # 16 bits, or 8 of them by old writers
        data = tiff(PIXELS, photometric="palette", colormap=table.T.astype(np.uint16) * factor)
        assert (decode(data) == table[PIXELS]).all()


@cache
def many_pages() -> dict[str, bytes]:
    frames = [Image.fromarray(one) for one in STACK]
    more: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
    return {
        "tiff": tiff(STACK, photometric="minisblack"),
        "tiff of 16 bit": tiff(STACK.astype(np.uint16) * 257, photometric="minisblack"),
        "tiff of ImageJ": tiff(STACK, imagej=True),
        "tiff with one directory": tiff(STACK, photometric="minisblack", contiguous=True, truncate=True),
        "gif": saved(frames[0], "GIF", **more),
        "png": saved(frames[0], "PNG", **more),
        "webp": saved(frames[0], "WEBP", lossless=True, **more),
    }


@pytest.mark.parametrize("kind", many_pages())
def test_several_pages_are_refused_by_name_in_every_format(kind: str) -> None:
    for read in (decode, decode_grey, decode_colour):
        with pytest.raises(ImageError, match="holds 3 pages: save one image a file"):
            read(many_pages()[kind])


@cache
def refused() -> dict[str, tuple[bytes, str]]:
    deep = PIXELS.astype(np.uint16) * 16
    cmyk = Image.fromarray(PIXELS).convert("CMYK")
    options: dict[str, Any] = {"lossless": False, "bitspersample": 12}
    return {
        "CMYK JPEG": (saved(cmyk, "JPEG"), "CMYK JPEG"),
        "CMYK TIFF": (saved(cmyk, "TIFF"), "CMYK"),
        "Lab TIFF": (saved(Image.fromarray(rgb(PIXELS)).convert("LAB"), "TIFF"), "CIE Lab"),
        "12-bit JPEG": (bytes(imagecodecs.jpeg8_encode(deep, **options)), "JPEG of 12 bit"),
        "lossless 16-bit JPEG": (
            bytes(imagecodecs.jpeg8_encode(deep, lossless=True, bitspersample=16)), "JPEG of 16 bit",
        ),
        "deep PPM": (b"P6 64 48 65535\n" + rgb(deep).astype(">u2").tobytes(), "PPM of more than 8 bit"),
        "deep text PPM": (b"P3\n# deep\n64 48 4095\n" + b"7 " * 9216, "PPM of more than 8 bit"),
        "two PGM": (2 * saved(PIXELS, "PPM"), "holds several pages"),
        "unnamed channels": (
            tiff(STACK[:2], photometric="minisblack", planarconfig="separate"), "without their meaning",
        ),
        "complex": (tiff(PIXELS.astype(np.complex64)), "complex64"),
        "not finite": (tiff(np.where(PIXELS > 250, np.nan, PIXELS).astype(np.float32)), "not finite"),
        "empty": (b"", "is empty"),
        "web page": (b"<html>404 Not found</html>", "web page"),
        "DICOM": (bytes(128) + b"DICM" + bytes(50), "source.kind=.device"),
        "array": (b"\x93NUMPY" + bytes(50), "NumPy array"),
        "text": (b"hello", "is not a JPEG, PNG"),
    }  # fmt: skip


@pytest.mark.parametrize("kind", refused())
def test_what_cannot_be_read_right_is_refused_by_name(kind: str) -> None:
    data, said = refused()[kind]
    for read in (decode, decode_grey, decode_colour):
        with pytest.raises(ImageError, match=said) as caught:
            read(data)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [kind for kind in grey_files() if kind != "tiff preview"])
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_a_file_cut_short_is_refused_in_every_format(kind: str, share: float) -> None:
    whole = grey_files()[kind]
    with pytest.raises(ImageError):
        decode(whole[: int(len(whole) * share)])


def colour_noise(levels: int, seed: int = 0) -> NDArray[np.uint8]:
    """The scan with noise of so many levels in each channel by itself."""
    noise = np.random.default_rng(seed).integers(-levels, levels + 1, (*PIXELS.shape, 3))
    return np.clip(rgb(PIXELS).astype(int) + noise, 0, 255).astype(np.uint8)


@cache
def everything() -> dict[str, bytes]:
    """Grey and colour, lossless and not, sound and refused."""
    colour = channels(PIXELS, PIXELS // 2, 255 - PIXELS)
    found = {**grey_files(), **many_pages(), **{kind: data for kind, (data, _) in refused().items()}}
    for name, pixels in {"grey": PIXELS, "grey rgb": rgb(PIXELS), "colour": colour}.items():
        for turn in (1, 6):
            found[f"jpeg {name} {turn}"] = saved(pixels, "JPEG", quality=90, exif=exif(turn))
        found[f"progressive {name}"] = saved(pixels, "JPEG", quality=90, progressive=True)
        found[f"cut {name}"] = saved(pixels, "JPEG", quality=90)[:-200]
        found[f"png {name} colour"] = saved(pixels, "PNG")
        found[f"tiff {name} deep"] = tiff(pixels.astype(np.uint16) * 100)
    found["noise"] = saved(colour_noise(4), "JPEG", quality=90)
    return found


@pytest.mark.parametrize("kind", everything())
def test_pack_evaluate_embed_and_stream_see_the_same_pixels_or_all_refuse(kind: str) -> None:
    """Of the file itself, and of what pack has stored of it."""
    data = everything()[kind]
    readers = (
        evaluate_pixels.decode_grey,
        partial(sample_reader.decode, grey=True),
        partial(sample_reader.decode, grey=False),
    )
    try:
        stored = prepare_image(data, PNG)
    except ImageError as error:
        for read in readers:
            with pytest.raises(ImageError, match=re.escape(str(error))):
                read(data)
        return
    wanted = decode_grey(saved(stored.pixels, "PNG"))
    assert (evaluate_pixels.decode_grey(data) == wanted).all()  # embed and reconstruct use it too
    for file in (data, stored.data):
        assert (sample_reader.decode(file, True) == wanted).all()
        assert (sample_reader.decode(file, True, lambda width, height: height) == wanted).all()
    seen = sample_reader.decode(stored.data, False)
    assert (seen == (stored.pixels if stored.pixels.ndim == 3 else rgb(stored.pixels))).all()


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut, flipped, overwritten, doubled or spliced, every other time near its beginning."""
    out = bytearray(data)
    near = len(out) if rng.integers(0, 2) else min(len(out), 400)
    for _ in range(rng.integers(1, 4)):
        at, more = int(rng.integers(0, near)), int(rng.integers(1, 64))
        match int(rng.integers(0, 5)):
            case 0:
                del out[at:]
            case 1:
                out[at : at + 1] = bytes([int(rng.integers(0, 256))])
            case 2:
                out[at : at + 4] = b"\xff\xff\xff\x7f" if more % 2 else bytes(4)
            case 3:
                out[at:at] = out[at : at + more]
            case _:
                del out[at : at + more]
    return bytes(out)


def test_mutated_files_of_every_format_end_in_pixels_or_one_line() -> None:
    rng, good, reasons = np.random.default_rng(0), 0, list[str]()
    files = [data for data in everything().values() if data]
    for number in range(1500):
        try:
            found = decode(mutated(files[number % len(files)], rng))
            assert found.dtype == np.uint8
            good += 1
        except ImageError as error:
            reasons.append(str(error))
    assert all("\n" not in reason and 10 < len(reason) < 260 for reason in reasons)
    assert 100 < good < 1400
