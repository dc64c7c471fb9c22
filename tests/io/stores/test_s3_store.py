"""S3 as a store, on a server in this process. (Other servers: tests/cluster/test_storage_on_s3.py.)"""

from __future__ import annotations

import pytest

from retfound_dist.io import storage
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
