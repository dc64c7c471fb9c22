"""What the packer writes is of these types; names that are paths and numbers that are texts are not."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.errors import RecordError
from retfound_dist.formats.shard_set_files import (
    Index,
    IndexFile,
    IndexHead,
    ManifestFile,
    PackedFields,
    SampleFields,
    ShardRow,
)
from retfound_dist.records import json_reader
from tests.hostile_names import HOSTILE
from tests.stream.stream_inputs import make_set

INDEX_FILE = {"name": "a-000000.idx", "bytes": 65, "sha256": "0" * 64}
SHARD = {"name": "a-000000.tar", "samples": 1, "bytes": 2048, "sha256": "ab", "index": INDEX_FILE}


def parse(tree: Any, kind: type) -> Any:
    return json_reader.parse(json.dumps(tree).encode(), kind, "a.json", "")


def test_every_file_of_a_packed_set_is_of_its_type(tmp_path: Path) -> None:
    manifest = make_set(tmp_path, 12)
    root = Path(manifest.url)
    found = json_reader.read(str(root / "manifest.json"), ManifestFile, "", format=1)
    assert found.samples == sum(shard.samples for shard in found.shards) == 12
    for shard in found.shards:
        index = json_reader.read(str(root / shard.index.name), Index, "", format=1)
        assert len(index.samples) == shard.samples
        with tarfile.open(root / shard.name) as tar:
            for key, *_ in index.samples:
                file = tar.extractfile(f"{key}.json")
                assert file is not None
                fields = json_reader.parse(file.read(), PackedFields, key, "")
                assert (fields["height"], fields["width"]) == (48, 64)
                assert fields["label"] in ("A", "B")


@pytest.mark.parametrize("name", [name for name in HOSTILE if isinstance(name, str)])
def test_a_name_that_leads_elsewhere_is_none(name: str) -> None:
    for tree, kind in ((INDEX_FILE, IndexFile), (SHARD, ShardRow)):
        with pytest.raises(RecordError, match=r"a\.json is damaged") as caught:
            parse({**tree, "name": name}, kind)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("digest", ["/../evil", "AB", "0" * 65, "ab "])
def test_a_digest_is_hex_or_empty(digest: str) -> None:
    assert parse(SHARD | {"sha256": ""}, ShardRow).sha256 == ""
    for key in ("sha256", "fields_sha256"):
        with pytest.raises(RecordError, match=key):
            parse(SHARD | {key: digest}, ShardRow)


@pytest.mark.parametrize("count", [-1, "1", True, 1.5, None, 1 << 63])
def test_a_count_is_a_whole_number_from_0(count: Any) -> None:
    for tree, kind, key in (
        (SHARD, ShardRow, "samples"),
        (INDEX_FILE, IndexFile, "bytes"),
        ({}, IndexHead, "samples"),
    ):
        with pytest.raises(RecordError, match=key):
            parse({**tree, key: count}, kind)


def test_fields_that_others_wrote_may_be_missing_or_numbers_and_packed_ones_have_a_size() -> None:
    for fields in ({}, {"label": 3, "patient": 17, "of_the_future": [1]}, {"label": None, "split": "train"}):
        assert parse(fields, SampleFields) == fields
        with pytest.raises(RecordError, match="height is missing"):
            parse(fields, PackedFields)
    for wrong in ({"label": ["AMD", "DME"]}, {"patient": {"id": 1}}, {"source": 5}):
        with pytest.raises(RecordError, match=next(iter(wrong))):
            parse(wrong, SampleFields)
