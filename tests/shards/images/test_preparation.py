from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from retfound_dist.config.schema import PackImage
from retfound_dist.errors import DataError
from retfound_dist.images import jpeg
from shards.images import preparation
from shards.images.preparation import prepare_image
from shards.images.scan import Scan
from shards.pack import pack
from shards.write.packed_sample import PackedSample, Skipped, make_sample
from tests.shards.pack_inputs import pack_config, scan_pixels

PNG = PackImage(format="png")
PIXELS = scan_pixels()


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey_file(kind: str = "JPEG", **options: Any) -> bytes:
    return encoded(Image.fromarray(PIXELS), kind, **options)


def rgb(pixels: np.ndarray[Any, Any]) -> Image.Image:
    return Image.fromarray(np.stack([pixels] * 3, axis=-1))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
def test_every_lossless_format_and_mode_gives_the_same_grey_pixels(kind: str, mode: str) -> None:
    if kind == "BMP" and mode == "LA":
        pytest.skip("BMP has no grey with alpha")
    stored = prepare_image(encoded(Image.fromarray(PIXELS).convert(mode), kind), PNG)
    assert (stored.pixels == PIXELS).all()
    assert (np.asarray(Image.open(io.BytesIO(stored.data))) == PIXELS).all()


def test_black_and_white_is_stretched_to_grey() -> None:
    assert set(np.unique(prepare_image(encoded(Image.fromarray(PIXELS > 90), "PNG"), PNG).pixels)) == {0, 255}


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "big-endian TIFF"])
def test_sixteen_bit_images_fill_eight_bits_whatever_they_use_of_theirs(bits: int, kind: str) -> None:
    deep = PIXELS.astype(np.uint16) * (2**bits // 256)
    buffer = io.BytesIO()
    if kind == "PNG":
        Image.fromarray(deep).save(buffer, "PNG")
    else:
        tifffile.imwrite(buffer, deep, byteorder=">" if kind.startswith("big") else "<")
    pixels = prepare_image(buffer.getvalue(), PNG).pixels
    expected = np.clip(PIXELS * (255 / np.percentile(PIXELS, 99.9)), 0, 255)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels - expected).max() <= 1


def test_a_saturated_speck_does_not_darken_a_deep_image() -> None:
    deep = PIXELS.astype(np.uint16) * 4
    deep[0, 0] = 65535
    assert prepare_image(deep, PNG).pixels.mean() > 0.9 * PIXELS.mean()


def test_floating_point_keeps_its_lowest_value_at_black() -> None:
    pixels = prepare_image(PIXELS.astype(np.float32) / 100 - 1, PNG).pixels
    assert pixels.min() == 0
    assert np.corrcoef(pixels.ravel(), PIXELS.ravel())[0, 1] > 0.999
    with pytest.raises(DataError, match="not finite"):
        prepare_image(np.full((40, 40), np.nan, np.float32), PNG)


def test_real_colour_stays_colour() -> None:
    colour = np.stack([PIXELS, PIXELS // 2, 255 - PIXELS], axis=-1)
    assert (prepare_image(encoded(Image.fromarray(colour), "PNG"), PNG).pixels == colour).all()
    as_jpeg = prepare_image(colour, PackImage())
    assert Image.open(io.BytesIO(as_jpeg.data)).mode == "RGB"


def test_a_grey_picture_in_a_colour_jpeg_is_stored_grey() -> None:
    stored = prepare_image(encoded(rgb(PIXELS), "JPEG", quality=95), PackImage())
    assert stored.pixels.ndim == 2
    assert not stored.as_is
    assert Image.open(io.BytesIO(stored.data)).mode == "L"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}])
def test_a_grey_jpeg_keeps_its_picture_and_loses_its_metadata(options: dict[str, Any]) -> None:
    exif = Image.Exif()
    exif[0x010E] = "Jane Doe 1950-01-01"
    original = grey_file(exif=exif, comment=b"Jane Doe", **options) + b"Jane Doe"
    stored = prepare_image(original, PackImage())
    assert stored.as_is
    assert b"Jane" not in stored.data
    assert b"Exif" not in stored.data
    assert (jpeg.decode(stored.data, "GRAY") == jpeg.decode(original, "GRAY")).all()
    assert original[-600:-10] in stored.data  # the compressed picture itself


@pytest.mark.parametrize("turn", range(2, 9))
def test_exif_orientation_is_applied_and_not_kept(turn: int) -> None:
    exif = Image.Exif()
    exif[jpeg.ORIENTATION] = turn
    stored = prepare_image(grey_file(exif=exif, quality=95), PNG)
    upright = np.asarray(Image.open(io.BytesIO(grey_file(quality=95))))
    turned = {
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, -1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright),
    }[turn]
    assert (stored.pixels == turned).all()
    assert (preparation.decode(stored.data) == turned).all()
    assert b"Exif" not in stored.data


@pytest.mark.parametrize("cut", [2, 10, 400, 1000])
def test_a_truncated_jpeg_is_an_error(cut: int) -> None:
    with pytest.raises(DataError, match="broken JPEG"):
        prepare_image(grey_file()[:-cut], PackImage())


def test_a_jpeg_with_zeroed_bytes_is_an_error_though_pillow_reads_it() -> None:
    data = grey_file(quality=95)
    zeroed = data[:1000] + bytes(300) + data[1300:]
    Image.open(io.BytesIO(zeroed)).load()
    with pytest.raises(DataError, match="broken JPEG"):
        prepare_image(zeroed, PackImage())


@pytest.mark.parametrize("shape", [(1, 1), (31, 100), (100, 31)])
def test_an_image_too_small_for_a_scan_is_an_error_that_says_its_size(shape: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=rf"is {shape[1]}x{shape[0]} pixels: a side is below 32"):
        prepare_image(encoded(Image.fromarray(np.resize(PIXELS, shape)), "PNG"), PackImage())


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_image_is_an_error(level: int) -> None:
    with pytest.raises(DataError, match="is blank"):
        prepare_image(encoded(Image.new("L", (64, 64), level), "JPEG"), PackImage())


@pytest.mark.parametrize("side", [8000, 60000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    with pytest.raises(DataError, match="more than 50,000,000"):
        prepare_image(b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b""), PackImage())


def test_a_jpeg_bomb_is_refused_as_well() -> None:
    data = bytearray(grey_file())
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", 60000, 60000)
    with pytest.raises(DataError, match="more than 50,000,000"):
        prepare_image(bytes(data), PackImage())


def test_what_is_no_image_is_an_error() -> None:
    for data in (b"", b"hi\n", b"GIF89a" + bytes(50), b"%PDF-1.4"):
        with pytest.raises(
            DataError, match=r"is not a JPEG, PNG, TIFF, BMP|is empty|is a PDF|cannot be read"
        ):
            prepare_image(data, PackImage())


def test_a_file_of_many_pages_is_an_error_that_counts_them() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.stack([PIXELS] * 5))
    with pytest.raises(DataError, match="holds 5 pages"):
        prepare_image(buffer.getvalue(), PackImage())


def test_images_are_scaled_down_antialiased_and_never_up() -> None:
    stripes = np.zeros((200, 100), np.uint8)
    stripes[::2] = 200
    small = prepare_image(stripes, PackImage(format="png", max_height=50)).pixels
    assert small.shape == (50, 25)
    assert np.abs(small[2:-2].astype(int) - 100).max() <= 3
    assert prepare_image(PIXELS, PackImage(max_height=1000)).pixels.shape == PIXELS.shape
    assert prepare_image(grey_file(), PackImage(max_height=40)).pixels.shape == (40, 53)


def test_mutated_files_end_in_a_sample_or_a_reason() -> None:
    """Bytes flipped, zeroed, cut and repeated anywhere: never an exception, never a bomb."""
    seeds = [grey_file(), encoded(rgb(PIXELS), "JPEG"), *(grey_file(kind) for kind in ("PNG", "TIFF", "BMP"))]
    rng, good = random.Random(0), 0
    for number in range(1500):
        result = make_sample(scan_of(mutate(seeds[number % len(seeds)], rng)), image=PackImage())
        assert isinstance(result, PackedSample | Skipped)
        good += isinstance(result, PackedSample)
        if isinstance(result, Skipped):
            assert result.reason
            assert "\n" not in result.reason
    assert 100 < good < 1400


def mutate(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 20])):
        start = rng.randrange(len(changed)) if rng.random() < 0.5 else rng.randrange(min(200, len(changed)))
        match rng.randrange(4):
            case 0:
                changed[start] ^= 1 << rng.randrange(8)
            case 1:
                changed[start : start + rng.randrange(1, 50)] = bytes(rng.randrange(1, 50))
            case 2:
                changed[start:start] = changed[start : start + rng.randrange(1, 50)]
            case 3 if len(changed) > 100:
                del changed[rng.randrange(50, len(changed)) :]
    return bytes(changed)


class Giving:
    """A scan's `read` that gives what it was made with."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __call__(self) -> bytes:
        return self.content


def scan_of(content: bytes) -> Scan:
    return Scan(key="k", origin="k.jpg", source="s", read=Giving(content))


def test_kermanys_real_scans_are_stored_as_they_are(test_data: Path) -> None:
    files = sorted((test_data / "kermany").glob("*/*.jpeg"))
    assert files
    for file in files:
        stored = prepare_image(file.read_bytes(), PackImage())
        assert stored.as_is
        assert len(stored.data) <= file.stat().st_size
        assert (preparation.decode(stored.data) == stored.pixels).all()


def test_a_picture_of_next_to_no_colour_packs_and_its_loss_is_measured(tmp_path: Path) -> None:
    """JPEG takes the little colour it has away: read back it is grey, and was not before."""
    for seed in range(24):
        grey = scan_pixels(seed, 48, 64)
        tinted = np.stack([grey, grey, np.where(grey > 200, 255, grey + 17)], -1)
        Image.fromarray(tinted.astype(np.uint8)).save(tmp_path / f"{seed}.png")
    manifest = pack(pack_config(tmp_path, tmp_path / "out"))
    assert manifest.image["psnr_images"]
    assert manifest.image["colour"] == 24
