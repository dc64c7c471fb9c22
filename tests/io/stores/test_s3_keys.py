"""Keys on S3 are taken as they are written. (Other servers: tests/cluster/test_storage_on_s3.py.)"""

from __future__ import annotations

from typing import Any

import pytest

from retfound_dist.io import storage
from retfound_dist.io.stores import s3_keys


@pytest.fixture
def fs(bucket: str) -> Any:
    """The filesystem of the bucket, as the rest of the house opens it."""
    return storage.open_fs(f"s3://{bucket}")[0]


def fill(fs: Any, bucket: str, *keys: str) -> None:
    for key in keys:
        fs.call_s3("put_object", Bucket=bucket, Key=key, Body=b"x")


def keys_in(fs: Any, bucket: str) -> list[str]:
    return [entry["Key"] for page in s3_keys.pages(fs, Bucket=bucket) for entry in page.get("Contents", [])]


def test_a_folder_has_its_own_keys_and_not_those_of_a_neighbour(fs: Any, bucket: str) -> None:
    fill(fs, bucket, "run/a", "run/b/c", "run2/a", "run")
    assert s3_keys.names_in(fs, bucket, "run") == ({"b"}, {"a"})
    assert s3_keys.keys_of(fs, bucket, "run") == ["run", "run/a", "run/b/c"]
    assert s3_keys.is_folder(fs, bucket, "run")
    assert not s3_keys.is_folder(fs, bucket, "ru")


@pytest.mark.parametrize("key", ["a*", "a?", "a[bc]", "a?versionId=x", "a\x01"])
def test_a_key_full_of_signs_is_deleted_and_what_it_would_match_stays(fs: Any, bucket: str, key: str) -> None:
    fill(fs, bucket, "ab", "a", "ac")
    fs.pipe_file(f"{bucket}/{key}", b"long")
    assert s3_keys.size_of(fs, bucket, key) == 4
    s3_keys.delete_keys(fs, bucket, [key])
    assert keys_in(fs, bucket) == ["a", "ab", "ac"]
    assert s3_keys.size_of(fs, bucket, key) is None


def test_more_keys_than_one_request_takes_are_listed_and_deleted(
    fs: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"f/{number:02d}" for number in range(25)]
    fill(fs, bucket, "other", *names)
    pages = list(s3_keys.pages(fs, Bucket=bucket, Prefix="f/", MaxKeys=10))
    assert [entry["Key"] for page in pages for entry in page["Contents"]] == names
    assert len(pages) == 3
    monkeypatch.setattr(s3_keys, "MAX_DELETED_KEYS", 10)
    s3_keys.delete_keys(fs, bucket, names)
    assert keys_in(fs, bucket) == ["other"]


def test_a_mark_changes_when_an_object_is_written_again_with_another_content(fs: Any, bucket: str) -> None:
    fill(fs, bucket, "a")
    first = s3_keys.version_mark(fs, bucket, "a")
    fs.call_s3("put_object", Bucket=bucket, Key="a", Body=b"y")
    assert s3_keys.version_mark(fs, bucket, "a") != first
    with pytest.raises(FileNotFoundError):
        s3_keys.version_mark(fs, bucket, "none")


def test_a_bucket_that_is_not_there_is_an_error_and_not_an_empty_folder(fs: Any, bucket: str) -> None:
    with pytest.raises(FileNotFoundError):
        s3_keys.is_folder(fs, f"{bucket}-none", "run")
    assert s3_keys.access_error(fs, bucket) is None
    assert isinstance(s3_keys.access_error(fs, f"{bucket}-none"), FileNotFoundError)
