from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from retfound_dist.errors import StorageError
from retfound_dist.io import storage
from tests import hostile_keys


@pytest.fixture(params=["path", "file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder's URL of each kind that needs no server."""
    scheme = {"path": "", "file": "file://", "memory": "memory:/"}[request.param]
    return f"{scheme}{tmp_path}"


def test_what_is_written_is_read(url: str) -> None:
    where = storage.join(url, "a", "b.json")
    storage.write_json(where, {"x": [1, 2]})
    assert storage.read_json(where) == {"x": [1, 2]}
    assert storage.exists(where)
    assert storage.size(where) == len(storage.read_bytes(where))
    storage.write_text(where, "é")
    assert storage.read_bytes(where) == "é".encode()


def test_files_travel_both_ways_whole(url: str, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(3_000_000))
    storage.put_file(str(source), storage.join(url, "x", "big"))
    info = storage.get_file(storage.join(url, "x", "big"), str(back))
    assert back.read_bytes() == source.read_bytes()
    assert info == storage.file_info(str(source)) == storage.bytes_info(source.read_bytes())
    with storage.open_read(storage.join(url, "x", "big")) as file:
        assert file.read(10) == source.read_bytes()[:10]


def test_a_folder_lists_its_files_and_folders(url: str) -> None:
    where = storage.join(url, "set")
    for name in ("b.tar", "a.tar", "sub/c.tar"):
        storage.write_bytes(storage.join(where, name), b"x")
    assert storage.list_names(where) == ["a.tar", "b.tar", "sub"]
    assert storage.list_names(where + "/") == ["a.tar", "b.tar", "sub"]
    assert storage.list_names(storage.join(url, "none")) == []
    assert storage.is_folder(where)
    assert not storage.is_folder(storage.join(where, "a.tar"))


def test_deleting_takes_a_file_or_a_folder_and_forgives_nothing_there(url: str) -> None:
    storage.write_bytes(storage.join(url, "d", "a"), b"x")
    storage.write_bytes(storage.join(url, "d", "s", "b"), b"x")
    storage.delete(storage.join(url, "d", "a"))
    assert storage.list_names(storage.join(url, "d")) == ["s"]
    storage.delete(storage.join(url, "d"))
    assert not storage.exists(storage.join(url, "d", "s", "b"))
    storage.delete(storage.join(url, "d"))


def test_reading_what_is_not_there_is_one_line_with_its_url(url: str) -> None:
    where = storage.join(url, "none.json")
    with pytest.raises(StorageError, match=r"cannot read .*none\.json: there is nothing there; check"):
        storage.read_bytes(where)
    with pytest.raises(StorageError, match="there is nothing there"):
        storage.get_file(where, "unused")


def test_what_is_not_json_is_one_line(url: str) -> None:
    storage.write_bytes(storage.join(url, "x.json"), b"\xff{")
    with pytest.raises(StorageError, match=r"x\.json: it is not JSON"):
        storage.read_json(storage.join(url, "x.json"))


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, source = tmp_path / "out" / "x", tmp_path / "source"
    source.write_bytes(b"new")
    storage.write_bytes(str(target), b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        storage.write_bytes(str(target), b"new")
    with pytest.raises(StorageError, match="No space left"):
        storage.put_file(str(source), str(target))
    assert {path.name: path.read_bytes() for path in target.parent.iterdir()} == {"x": b"old"}


def test_a_broken_fetch_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        storage.get_file(str(tmp_path / "none"), str(tmp_path / "back"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_a_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="it is a folder, not a file"):
        storage.read_bytes(str(tmp_path))


def test_an_unknown_scheme_is_one_line() -> None:
    with pytest.raises(StorageError, match="this installation cannot open nosuch:// URLs"):
        storage.read_bytes("nosuch://x/y")


def test_urls_stay_urls() -> None:
    assert storage.join("s3://bucket/", "a", "b") == "s3://bucket/a/b"
    assert storage.join("/", "a") == "/a"
    assert storage.name("s3://bucket/set/") == "set"
    assert storage.is_local("file:///x")
    assert storage.is_local("C/x")
    assert not storage.is_local("s3://b/x")
    assert storage.local_path("~/x") == os.path.expanduser("~/x")
    with pytest.raises(StorageError, match="is not a local path"):
        storage.local_path("s3://b/x")


@given(acts=hostile_keys.ACTS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_disk_and_memory_hold_exactly_the_keys_that_were_named(acts: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        hostile_keys.follow(folder, acts)
        hostile_keys.follow(f"memory:/{folder}", acts)


def test_deleting_one_name_leaves_every_other(url: str) -> None:
    """Patterns, percents, quotes, leading dashes: a name is a name."""
    content_by_key = hostile_keys.neighbours(url)
    for name in hostile_keys.NAMED:
        storage.delete(storage.join(url, name))
        del content_by_key[name]
        assert storage.list_names(url) == sorted({key.split("/")[0] for key in content_by_key})
        storage.delete(storage.join(url, f"{name}x"))
        del content_by_key[f"{name}x/in"]
        assert storage.list_names(url) == sorted({key.split("/")[0] for key in content_by_key})


def test_no_whole_store_and_no_empty_path_is_deleted() -> None:
    storage.write_bytes("memory://kept/x", b"x")
    for url in ("/", "file:///", "memory://", "s3://", "", " "):
        with pytest.raises(StorageError):
            storage.delete(url)
    assert storage.exists("memory://kept/x")


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("s3:/bucket/x", "write s3://bucket/x"),
        ("s3:bucket/x", "write s3://bucket/x"),
        ("S3:/bucket/x", "write s3://bucket/x"),
        (" s3://bucket/x", "write s3://bucket/x"),
        ("s3a://bucket/x", "write s3://bucket/x"),
        ("gs:/bucket/x", "write gs://bucket/x"),
        ("memory:/x/y", "write memory://x/y"),
        ("file:/x/y", "write file:///x/y, or the plain path /x/y"),
        ("s3:///x", "write s3://BUCKET/FOLDER"),
        ("s3://bucket/a/../b", "write the URL without them"),
        ("https://bucket.s3.amazonaws.com/x", "AWS_ENDPOINT_URL"),
        ("http://localhost:9000/x", "AWS_ENDPOINT_URL"),
        ("", "give a path, or a URL"),
        ("a\0b", "zero byte"),
    ],
)
def test_what_is_nearly_a_url_is_refused_with_the_right_spelling(url: str, right: str) -> None:
    """And never taken for a path: `s3:/bucket` would be a folder named `s3:` here."""
    for act in (storage.read_bytes, storage.exists, storage.list_names, storage.delete, storage.is_folder):
        with pytest.raises(StorageError, match=re.escape(right)):
            act(url)
    with pytest.raises(StorageError, match=re.escape(right)):
        storage.write_bytes(url, b"x")


def test_a_scheme_in_capitals_is_the_same_store() -> None:
    storage.write_bytes("MEMORY://capital/x", b"x")
    assert storage.list_names("memory://capital") == ["x"]


@pytest.mark.parametrize("key", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_address_without_http_is_refused_with_the_right_spelling(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv(key, "localhost:9000")
    with pytest.raises(StorageError, match=rf"{key}=localhost:9000 .*write {key}=http://localhost:9000"):
        storage.read_bytes("s3://bucket/x")


def test_a_file_above_a_path_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="is a file, not a folder"):
        storage.read_bytes(str(tmp_path / "file" / "x"))
    assert not storage.exists(str(tmp_path / "file" / "x"))
    assert storage.list_names(str(tmp_path / "file")) == []
