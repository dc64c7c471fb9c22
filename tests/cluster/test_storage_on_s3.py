"""retfound_dist.storage against real S3 servers."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from retfound_dist import storage
from retfound_dist.errors import StorageError
from tests.cluster.real_s3 import S3, deny, use, with_new_bucket


def test_what_is_written_is_read_back(s3: S3) -> None:
    url = storage.join(s3.url, "run", "config.json")
    storage.write_json(url, {"seed": 7})
    assert storage.read_json(url) == {"seed": 7}
    assert storage.exists(url)
    assert storage.size(url) == len(storage.read_bytes(url))


def test_a_second_write_replaces_the_first(s3: S3) -> None:
    url = storage.join(s3.url, "a.txt")
    storage.write_text(url, "first, and longer")
    storage.write_text(url, "second")
    assert storage.read_bytes(url) == b"second"


def test_a_multipart_file_arrives_whole(s3: S3, tmp_path: Path) -> None:
    data = os.urandom(70 << 20)  # more than s3fs's part of 50 MiB
    (tmp_path / "in").write_bytes(data)
    url = storage.join(s3.url, "shards", "oct-000000.tar")
    storage.put_file(str(tmp_path / "in"), url)
    assert storage.get_file(url, str(tmp_path / "out")) == storage.bytes_info(data)
    assert (tmp_path / "out").read_bytes() == data


def test_an_empty_file_is_a_file(s3: S3, tmp_path: Path) -> None:
    url = storage.join(s3.url, "empty")
    storage.write_bytes(url, b"")
    assert storage.exists(url)
    assert storage.get_file(url, str(tmp_path / "out")).bytes == 0


def test_a_file_that_the_store_will_not_delete_is_named(ceph_server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 answers a delete of many files with 200, and says which have failed inside."""
    s3 = with_new_bucket(ceph_server)
    use(s3, monkeypatch)
    folder = storage.join(s3.url, "step_1")
    for name in ("kept", "gone"):
        storage.write_text(storage.join(folder, name), "x")
    deny(s3, "s3:DeleteObject", "step_1/kept")
    with pytest.raises(StorageError, match=r"cannot delete .*step_1: access denied"):
        storage.delete(folder)
    assert storage.list_names(folder) == ["kept"]


def test_listing_names_files_and_folders_once(s3: S3) -> None:
    for name in ("step_2/a", "step_2/b", "step_1/a", "x.json"):
        storage.write_text(storage.join(s3.url, "checkpoints", name), "x")
    assert storage.list_names(storage.join(s3.url, "checkpoints")) == ["step_1", "step_2", "x.json"]
    assert storage.list_names(storage.join(s3.url, "nothing")) == []


def test_a_file_of_another_process_is_seen_at_once(s3: S3) -> None:
    folder = storage.join(s3.url, "checkpoints")
    assert storage.list_names(folder) == []
    assert not storage.exists(storage.join(folder, "COMMIT.json"))
    storage.write_text(storage.join(folder, "COMMIT.json"), "{}")
    assert storage.list_names(folder) == ["COMMIT.json"]
    assert storage.exists(storage.join(folder, "COMMIT.json"))


def test_deleting_a_folder_leaves_its_neighbours(s3: S3) -> None:
    for name in ("step_1/a", "step_1/b/c", "step_10/a"):
        storage.write_text(storage.join(s3.url, name), "x")
    storage.delete(storage.join(s3.url, "step_1"))
    assert storage.list_names(s3.url) == ["step_10"]
    storage.delete(storage.join(s3.url, "step_1"))


READS: list[Callable[[str], object]] = [storage.read_bytes, storage.read_json, storage.size]


@pytest.mark.parametrize("read", READS)
def test_a_missing_object_is_one_line_with_its_url(s3: S3, read: Callable[[str], object]) -> None:
    url = storage.join(s3.url, "no", "manifest.json")
    with pytest.raises(StorageError) as caught:
        read(url)
    one_line(caught.value, s3, url)


def test_a_missing_bucket_is_one_line_with_its_url(s3: S3) -> None:
    for url, act in (
        ("s3://no-such-bucket-here/a", storage.read_bytes),
        ("s3://no-such-bucket-here/b", lambda url: storage.write_bytes(url, b"x")),
    ):
        with pytest.raises(StorageError) as caught:
            act(url)
        one_line(caught.value, s3, url)


@pytest.mark.parametrize("wrong", ["key", "secret"])
def test_wrong_credentials_are_one_line_without_them(
    s3: S3, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    storage.write_text(storage.join(s3.url, "a"), "x")
    bad = dataclasses.replace(s3, **{wrong: "WRONG1234567890"})
    use(bad, monkeypatch)
    for act in (storage.read_bytes, storage.list_names, lambda url: storage.write_bytes(url, b"x")):
        with pytest.raises(StorageError) as caught:
            act(storage.join(s3.url, "a"))
        one_line(caught.value, bad, s3.url)
        assert "credentials" in str(caught.value)


def test_a_server_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    server = S3("http://127.0.0.1:9", key="AK1234567890", secret="secret1234567890")
    use(server, monkeypatch)
    with pytest.raises(StorageError) as caught:
        storage.read_bytes("s3://bucket/a")
    one_line(caught.value, server, "s3://bucket/a")


def one_line(error: StorageError, server: S3, url: str) -> None:
    """What a person is shown: the URL, on one line, and no credentials."""
    text = str(error)
    assert "\n" not in text
    assert url in text
    assert server.key not in text
    assert server.secret not in text
