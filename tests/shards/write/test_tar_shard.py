"""One tar shard: the bytes that webdataset writes, and where each sample lies."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from retfound_dist.config.schema import PackImage
from retfound_dist.formats.shard_set import Entry, read_index
from shards.images.scan import Scan
from shards.pack import pack
from shards.write.packed_sample import PackedSample, make_sample
from shards.write.tar_shard import TarShard, index_bytes
from tests.shards.pack_inputs import pack_config, scan_pixels, write_classes

COUNTS = {"NO": 12, "AMD": 8}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "images", COUNTS)


def test_the_tars_are_what_webdatasets_own_writer_gives(images: Path, tmp_path: Path) -> None:
    manifest = pack(pack_config(images, tmp_path / "out"))
    buffer = io.BytesIO()
    with webdataset.TarWriter(buffer, encoder=False, user="", group="", mtime=0) as writer:
        for sample in webdataset.WebDataset(f"{manifest.url}/oct-000000.tar", shardshuffle=False):
            writer.write({key: sample[key] for key in ("__key__", "jpg", "json")})
    assert (tmp_path / "out" / "oct-000000.tar").read_bytes() == buffer.getvalue()


def test_the_index_says_where_each_sample_lies(images: Path, tmp_path: Path) -> None:
    manifest = pack(pack_config(images, tmp_path / "out", image={"format": "png"}))
    for shard in manifest.shards:
        data = (tmp_path / "out" / shard.name).read_bytes()
        for entry in read_index(manifest.url, shard):
            image = data[entry.image_offset : entry.image_offset + entry.image_bytes]
            fields = data[entry.json_offset : entry.json_offset + entry.json_bytes]
            assert np.asarray(Image.open(io.BytesIO(image))).shape == (48, 64)
            assert json.loads(fields)["label"] == entry.key.split("_")[0]


def test_the_digest_and_the_length_are_those_of_all_that_was_written() -> None:
    pixels = scan_pixels(4)
    made = make_sample(Scan(key="a", origin="a", source="s", read=lambda: pixels), image=PackImage())
    assert isinstance(made, PackedSample)
    stream = io.BytesIO()
    shard = TarShard(stream)
    shard.add(made)
    assert hashlib.sha256(stream.getvalue()).hexdigest() != shard.close()
    data = stream.getvalue()
    assert len(data) == shard.length
    assert len(data) % tarfile.RECORDSIZE == 0
    stream = io.BytesIO()
    again = TarShard(stream)
    again.add(made)
    assert again.close() == hashlib.sha256(data).hexdigest()


def test_an_index_is_one_line_of_json_with_a_row_for_each_sample() -> None:
    entry = Entry("a", "jpg", 512, 700, 2048, 90, "ab")
    data = index_bytes([entry], {"mark": "m"})
    assert data.endswith(b"\n")
    assert json.loads(data) == {"format": 1, "mark": "m", "samples": [["a", "jpg", 512, 700, 2048, 90, "ab"]]}
