"""S3 as a store, on a server in this process. (Other servers: tests/cluster/test_storage_on_s3.py.)"""

from __future__ import annotations

import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from retfound_dist.errors import StorageError
from retfound_dist.io import slow_store, storage
from retfound_dist.io.stores import s3_store
from retfound_dist.io.stores.s3_store import PART_BYTES, S3Store


@pytest.fixture
def store(bucket: str) -> S3Store:
    return S3Store(storage.open_fs(f"s3://{bucket}")[0])


def test_folders_are_the_beginnings_of_keys(store: S3Store, bucket: str) -> None:
    for name in ("run/a", "run/b/c", "run2"):
        store.write(f"s3://{bucket}/{name}", b"x")
    assert sorted(store.list_names(f"s3://{bucket}/run")) == ["a", "b"]
    assert store.list_folders(f"s3://{bucket}") == ["run"]
    assert store.is_folder(f"s3://{bucket}/run")
    assert not store.is_folder(f"s3://{bucket}/run2")
    assert store.size(f"s3://{bucket}/run2") == 1
    with pytest.raises(IsADirectoryError):
        store.size(f"s3://{bucket}/run")
    store.delete(f"s3://{bucket}/run")
    assert store.list_names(f"s3://{bucket}") == ["run2"]


def test_a_bucket_is_the_root(store: S3Store, bucket: str) -> None:
    assert store.is_root(f"s3://{bucket}")
    assert not store.is_root(f"s3://{bucket}/run")


def test_uploads_that_were_not_finished_are_aborted_below_the_folder_alone(
    store: S3Store, bucket: str
) -> None:
    for key in ("run/a", "run2/b"):
        store.fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    assert store.abort_uploads(f"s3://{bucket}/run") == 1
    assert store.abort_uploads(f"s3://{bucket}") == 1


def test_a_large_file_is_sent_in_parts_of_a_fixed_size(
    store: S3Store, bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = tmp_path_factory.mktemp("large") / "x"
    source.write_bytes(bytes(2 * PART_BYTES + 1))
    store.put_file(str(source), f"s3://{bucket}/x")
    assert store.checksum(f"s3://{bucket}/x").endswith("-3")


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT is Linux's")
def test_a_write_of_which_the_store_takes_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store accepts the connection and never reads: the system's buffers are full, and nothing is sent."""
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                connections.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        monkeypatch.setattr(s3_store, "SILENCE_S", 1)
        storage._filesystem.cache_clear()
        source = tmp_path / "weights"
        source.write_bytes(bytes(PART_BYTES))
        began = time.monotonic()
        with slow_store.time_limit("s3://b/x", 4), pytest.raises(StorageError, match="cannot write s3://b/x"):
            storage.put_file(str(source), "s3://b/x")
        # Without the limit this line is never reached: the test's own time-out ends it.
        assert time.monotonic() - began > 1
    storage._filesystem.cache_clear()
    for connection in connections:
        connection.close()
