from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from retfound_dist.errors import StorageError
from retfound_dist.io import storage
from retfound_dist.records.exclusive_write import WriteResult, write_new
from shards.pack import pack
from shards.verify import verify
from tests.shards.pack_inputs import file_bytes, pack_config, write_classes

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh bucket on an S3 server in this process, reached by the usual AWS environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    storage._filesystem.cache_clear()
    name = f"corpus-{uuid.uuid4().hex[:8]}"
    storage.open_fs(f"s3://{name}")[0].mkdir(name)
    yield f"s3://{name}"
    storage._filesystem.cache_clear()
    server.stop()


def test_a_set_on_s3_is_the_set_on_disk_and_verifies(bucket: str, tmp_path: Path) -> None:
    images = write_classes(tmp_path / "images", {"A": 12, "B": 8})
    plain = pack(pack_config(images, tmp_path / "plain"))
    config = pack_config(images, f"{bucket}/sets/oct")
    remote = pack(config)
    assert remote.shards == plain.shards
    names = storage.list_names(f"{bucket}/sets/oct")
    assert {n: storage.read_bytes(f"{bucket}/sets/oct/{n}") for n in names} == file_bytes(tmp_path / "plain")
    assert verify(f"{bucket}/sets/oct", 2) == []
    assert pack(config) == remote
    tar = f"{bucket}/sets/oct/oct-000001.tar"
    storage.write_bytes(tar, storage.read_bytes(tar)[:-1] + b"x")
    assert verify(f"{bucket}/sets/oct", 1) == ["oct-000001.tar differs from the manifest's sha256"]


def test_packing_on_s3_goes_on_after_the_last_committed_shard(bucket: str, tmp_path: Path) -> None:
    images = write_classes(tmp_path / "images", {"A": 12, "B": 8})
    plain = pack(pack_config(images, tmp_path / "plain"))
    for name in ("oct-000000.tar", "oct-000000.idx", "oct-000001.tar"):
        storage.put_file(str(tmp_path / "plain" / name), f"{bucket}/oct/{name}")
    storage.write_json(f"{bucket}/oct/packing.json", {})
    assert pack(pack_config(images, f"{bucket}/oct")).shards == plain.shards
    assert "packing.json" not in storage.list_names(f"{bucket}/oct")


def test_a_file_is_written_where_none_stands_and_never_over_another(bucket: str) -> None:
    assert write_new(f"{bucket}/set/LOCK.json", b"one") is WriteResult.NEW
    assert write_new(f"{bucket}/set/LOCK.json", b"two") is WriteResult.EXISTS
    assert storage.read_bytes(f"{bucket}/set/LOCK.json") == b"one"


def test_a_bucket_that_is_not_there_is_one_line_without_the_secret(bucket: str, tmp_path: Path) -> None:
    images = write_classes(tmp_path / "images", {"A": 2})
    with pytest.raises(
        StorageError, match="cannot list s3://nowhere/oct: there is no bucket nowhere"
    ) as caught:
        pack(pack_config(images, "s3://nowhere/oct"))
    assert "\n" not in str(caught.value)
    assert "hidden-secret" not in str(caught.value)
