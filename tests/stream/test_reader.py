import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.errors import DataError
from retfound_dist.shardset import Manifest
from retfound_dist.stream.cache import ShardFiles
from retfound_dist.stream.reader import decode, read_sample
from tests.stream.stream_inputs import make_set


def jpeg(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


RAMP = np.tile(np.arange(64, dtype=np.uint8) * 3, (48, 1))


def test_a_grey_jpeg_decodes_as_pillow_decodes_it() -> None:
    data = jpeg(RAMP)
    assert np.array_equal(decode(data, grey=True), np.asarray(Image.open(io.BytesIO(data))))
    assert decode(data, grey=False).shape == (48, 64, 3)


def test_png_decodes() -> None:
    out = io.BytesIO()
    Image.fromarray(RAMP).save(out, "PNG")
    assert np.array_equal(decode(out.getvalue(), grey=True), RAMP)


@pytest.mark.parametrize("damage", ["cut", "zeroed", "nonsense", "empty"])
def test_damaged_bytes_are_refused(damage: str) -> None:
    data = jpeg(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    half = len(data) // 2
    broken = {
        "cut": data[:half],
        "zeroed": data[:half] + bytes(half - 2) + data[-2:],
        "nonsense": b"hello",
        "empty": b"",
    }
    with pytest.raises(ValueError):
        decode(broken[damage], grey=True)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make_set(tmp_path, count=12, shard_mb=1.0)


def spoil(path: Path, offset: int, size: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = bytes(size)
    path.write_bytes(data)


def test_a_bad_sample_is_replaced_by_the_next_of_its_shard_and_named(manifest: Manifest) -> None:
    shard = ShardFiles(manifest.url, "", keep=2).open(manifest.shards[0])
    entry = shard.entries[3]
    spoiled = bytearray(shard.data[:])
    spoiled[entry.image_offset : entry.image_offset + 20] = bytes(20)
    damaged = type(shard)(shard.shard, bytes(spoiled), shard.entries)  # type: ignore[arg-type]
    found = read_sample(damaged, 3)
    assert found.key == shard.entries[4].key
    assert entry.key in found.fault
    assert manifest.shards[0].name in found.fault
    assert read_sample(damaged, 4).fault == ""


def test_a_shard_that_differs_from_its_manifest_is_refused_by_name(manifest: Manifest) -> None:
    shard = manifest.shards[0]
    spoil(Path(manifest.url) / shard.name, 600, 4)
    with pytest.raises(DataError, match=rf"{shard.name} differs from its manifest"):
        ShardFiles(manifest.url, "", keep=2).open(shard)


def test_a_missing_shard_is_named(manifest: Manifest) -> None:
    (Path(manifest.url) / manifest.shards[0].name).unlink()
    with pytest.raises(DataError, match=rf"{manifest.shards[0].name} is missing"):
        ShardFiles(manifest.url, "", keep=2).open(manifest.shards[0])
