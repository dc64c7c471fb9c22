import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.errors import DataError
from retfound_dist.formats.shard_set import Manifest, read_index
from retfound_dist.stream.sample_reader import LocalShards, SampleReader, decode
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


@pytest.mark.parametrize("wanted", [1, 7, 8, 9, 33, 63, 64])
def test_only_the_rows_that_are_wanted_are_decoded(wanted: int) -> None:
    data = jpeg(np.random.default_rng(2).integers(0, 256, (64, 80), dtype=np.uint8))
    found = decode(data, True, lambda width, height: wanted if (width, height) == (80, 64) else 0)
    assert found.shape == (wanted, 80)
    assert np.array_equal(found, decode(data, grey=True)[:wanted])


def test_other_images_are_asked_for_too_and_decoded_whole() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (64, 80), dtype=np.uint8)
    files = []
    for options in ({"format": "PNG"}, {"format": "JPEG", "progressive": True}, {"format": "JPEG"}):
        out = io.BytesIO()
        image = Image.fromarray(pixels)
        (image.convert("RGB") if options == {"format": "JPEG"} else image).save(out, **options)  # type: ignore[arg-type]
        files.append(out.getvalue())
    asked: list[tuple[int, int]] = []

    def want(width: int, height: int) -> int:
        asked.append((width, height))
        return 5

    assert [decode(data, True, want).shape for data in files] == [(64, 80)] * 3
    assert asked == [(80, 64)] * 3


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


def test_a_deep_png_is_scaled_and_not_clipped() -> None:
    out = io.BytesIO()
    Image.fromarray(RAMP.astype(np.uint16) * 200).save(out, "PNG")
    found = decode(out.getvalue(), grey=True)
    assert found.dtype == np.uint8
    assert np.corrcoef(found.ravel(), RAMP.ravel())[0, 1] > 0.999
    assert len(np.unique(found)) > 50
    assert decode(out.getvalue(), grey=False).shape == (48, 64, 3)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make_set(tmp_path, count=12, shard_mb=0.02)


def reader(manifest: Manifest, max_replaced: int = 100) -> SampleReader:
    return SampleReader(
        LocalShards(manifest.url), manifest.shards, True, max_open=2, max_replaced=max_replaced, patience_s=1
    )


def spoil(manifest: Manifest, shard: int, index: int, at: int = 60) -> str:
    """Flips one bit of an image's bytes; gives its key."""
    entry = read_index(manifest.url, manifest.shards[shard])[index]
    path = Path(manifest.url) / manifest.shards[shard].name
    data = bytearray(path.read_bytes())
    data[entry.image_offset + at] ^= 1
    path.write_bytes(data)
    return entry.key


def all_places(manifest: Manifest) -> list[tuple[int, int]]:
    return [(number, index) for number, s in enumerate(manifest.shards) for index in range(s.samples)]


def test_samples_are_read_in_the_order_asked_for(manifest: Manifest) -> None:
    places = all_places(manifest)[::-1]
    keys = [sample.key for sample in reader(manifest).read(places)]
    assert keys == [read_index(manifest.url, manifest.shards[s])[i].key for s, i in places]


def test_one_flipped_bit_is_found_named_and_replaced_by_the_next_sample(manifest: Manifest) -> None:
    key = spoil(manifest, 0, 1)
    before, bad, after = reader(manifest).read([(0, 0), (0, 1), (0, 2)])
    assert not before.faults
    assert bad.key == after.key
    assert np.array_equal(bad.pixels, after.pixels)
    (fault,) = bad.faults
    assert fault.startswith(f"{manifest.shards[0].name}/{key}.")
    assert "differ" in fault


def test_the_last_sample_of_a_shard_is_replaced_by_the_first_of_the_next(manifest: Manifest) -> None:
    spoil(manifest, 0, manifest.shards[0].samples - 1)
    (found,) = reader(manifest).read([(0, manifest.shards[0].samples - 1)])
    assert found.key == read_index(manifest.url, manifest.shards[1])[0].key


def test_too_many_bad_ones_in_a_row_are_an_error_that_names_shard_and_key(manifest: Manifest) -> None:
    places = all_places(manifest)
    keys = [spoil(manifest, *place) for place in places[:3]]
    assert len(next(reader(manifest, max_replaced=3).read(places[:1])).faults) == 3
    with pytest.raises(DataError, match=rf"3 samples in a row .*{manifest.shards[0].name}/{keys[0]}"):
        next(reader(manifest, max_replaced=2).read(places[:1]))


def test_when_nothing_at_all_can_be_read_it_ends(manifest: Manifest) -> None:
    for place in all_places(manifest):
        spoil(manifest, *place)
    with pytest.raises(DataError, match="12 samples in a row"):
        next(reader(manifest).read([(0, 0)]))


@pytest.mark.parametrize("left", [0, 700])
def test_the_samples_a_cut_shard_has_lost_are_replaced(manifest: Manifest, left: int) -> None:
    path = Path(manifest.url) / manifest.shards[1].name
    path.write_bytes(path.read_bytes()[:left])
    (found,) = reader(manifest).read([(1, 0)])
    assert len(found.faults) == manifest.shards[1].samples


def test_a_missing_shard_is_named(manifest: Manifest) -> None:
    (Path(manifest.url) / manifest.shards[0].name).unlink()
    with pytest.raises(DataError, match=rf"{manifest.shards[0].name} is missing"):
        next(reader(manifest).read([(0, 0)]))


def test_no_more_shards_stay_open_than_are_kept_and_the_ones_used_last_are(tmp_path: Path) -> None:
    manifest = make_set(tmp_path, count=20, shard_mb=0.02)
    reading = reader(manifest)
    assert len(manifest.shards) > 2
    order = [0, 1, 2, 1, 0]
    for shard in order:
        next(reading.read([(shard, 0)]))
        assert len(reading._open) <= 2
    assert list(reading._open) == [1, 0]


def test_rows_that_are_all_wanted_are_decoded_strictly() -> None:
    data = jpeg(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    half = len(data) // 2
    zeroed = data[:half] + bytes(half - 2) + data[-2:]
    with pytest.raises(ValueError):
        decode(zeroed, True, lambda width, height: height)


CUT = """
import os, sys
from pathlib import Path
from retfound_dist.errors import DataError
from retfound_dist.stream import open_stream
with open_stream(sys.argv[1], global_batch=8, workers=1, image_size=64, bad_sample_budget=3) as stream:
    batches = iter(stream)
    print(next(batches).faults)
    for path in Path(sys.argv[1]).glob("*.tar"):
        os.truncate(path, 600)
    try:
        for _ in batches:
            pass
    except DataError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_shard_that_is_cut_while_it_is_read_is_bad_samples_and_no_death(tmp_path: Path) -> None:
    url = make_set(tmp_path, count=40).url
    script = tmp_path / "cut.py"
    script.write_text(CUT)
    done = subprocess.run([sys.executable, str(script), url], capture_output=True, text=True, timeout=120)
    first, error_line = done.stdout.splitlines()
    assert first == "[]"
    assert "samples in a row cannot be read, the first: " in error_line
    assert ".tar/" in error_line
    assert "differ from the manifest's" in error_line
