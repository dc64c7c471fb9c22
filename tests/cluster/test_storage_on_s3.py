"""retfound_dist.io.storage against real S3 servers."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import os
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from retfound_dist.cli import main
from retfound_dist.errors import StorageError
from retfound_dist.io import storage
from retfound_dist.io.stores.s3_store import ReplacedError
from tests import ROOT, hostile_keys
from tests.cluster.real_faults import chaos
from tests.cluster.real_s3 import S3, deny, use, with_new_bucket


@pytest.fixture
def ceph(ceph_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """A new bucket on Ceph; this process's environment is set to reach it."""
    s3 = with_new_bucket(ceph_server)
    use(s3, monkeypatch)
    return s3


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


def test_a_file_that_is_replaced_again_and_again_is_read_whole(s3: S3) -> None:
    url, contents = storage.join(s3.url, "LOCK.json"), [b"short", b"a longer text" * 1000]
    storage.write_bytes(url, contents[0])
    stop, end = threading.Event(), time.monotonic() + 60

    def write() -> None:
        for content in itertools.cycle(contents):
            if stop.is_set():
                return
            storage.write_bytes(url, content)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            read = [storage.read_bytes(url) for _ in range(60)]
            # A slow machine may read one of the two again and again.
            while len(set(read)) < 2 and time.monotonic() < end:
                read.append(storage.read_bytes(url))
        finally:
            stop.set()
    writing.result()
    assert set(read) == set(contents)


def test_a_file_that_is_replaced_while_it_is_read_in_parts_is_named(ceph: S3) -> None:
    url = storage.join(ceph.url, "weights.pth")
    storage.write_bytes(url, b"first")
    with storage.open_read(url) as file:
        storage.write_bytes(url, b"second")
        with pytest.raises(ReplacedError, match="it was replaced while it was read"):
            file.read()


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


def test_a_file_that_the_store_will_not_delete_is_named(ceph: S3) -> None:
    """S3 answers a delete of many files with 200, and says which have failed inside."""
    folder = storage.join(ceph.url, "step_1")
    for name in ("kept", "gone"):
        storage.write_text(storage.join(folder, name), "x")
    deny(ceph, "s3:DeleteObject", "step_1/kept")
    with pytest.raises(StorageError, match=r"cannot delete .*step_1: access denied"):
        storage.delete(folder)
    assert storage.list_names(folder) == ["kept"]


@given(acts=hostile_keys.ACTS)
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_store_holds_exactly_the_keys_that_were_named(s3: S3, acts: list[tuple[str, str, str]]) -> None:
    hostile_keys.follow(storage.join(s3.url, uuid.uuid4().hex), acts, each=False)


def test_deleting_one_name_leaves_every_other(ceph: S3) -> None:
    """`oct[1]` once took `oct1` with it. (rclone takes two spellings of one accented letter for one name.)"""
    held = hostile_keys.neighbours(ceph.url)
    for name in hostile_keys.NAMED:
        storage.delete(storage.join(ceph.url, name))
        del held[name]
        assert storage.list_names(ceph.url) == sorted({key.split("/")[0] for key in held})
        storage.delete(storage.join(ceph.url, f"{name}x"))
        del held[f"{name}x/in"]
    assert storage.list_names(ceph.url) == []


def test_a_file_and_a_folder_of_one_name_are_told_apart(ceph: S3) -> None:
    """Only an object store has both; rclone keeps its objects as files on a disk."""
    for name in ("a", "a/b", "a-b", "ab/c"):
        storage.write_text(storage.join(ceph.url, name), name)
    assert storage.read_bytes(storage.join(ceph.url, "a")) == b"a"
    assert storage.is_folder(storage.join(ceph.url, "a"))
    assert storage.list_names(ceph.url) == ["a", "a-b", "ab"]
    with pytest.raises(StorageError, match="it is a folder"):
        storage.read_bytes(storage.join(ceph.url, "ab"))
    with pytest.raises(StorageError, match="it is a folder"):
        storage.size(storage.join(ceph.url, "ab"))
    storage.delete(storage.join(ceph.url, "a"))
    assert storage.list_names(ceph.url) == ["a-b", "ab"]


def test_a_folder_of_more_files_than_a_page_goes_whole(ceph: S3) -> None:
    """S3 lists and deletes a thousand at a time."""
    fs, _ = storage.open_fs(ceph.url)
    names = [f"{n:04d}" for n in range(1005)]
    fs.pipe({f"{ceph.url}/many/{name}": b"" for name in names})
    storage.write_bytes(f"{ceph.url}/many2/x", b"")
    assert storage.list_names(f"{ceph.url}/many") == names
    storage.delete(f"{ceph.url}/many")
    assert storage.list_names(ceph.url) == ["many2"]


def test_no_bucket_is_deleted_whole(s3: S3) -> None:
    storage.write_text(storage.join(s3.url, "a"), "x")
    for url in (s3.url, f"{s3.url}/", f"{s3.url}//"):
        with pytest.raises(StorageError, match="whole store"):
            storage.delete(url)
    assert storage.list_names(s3.url) == ["a"]


def test_packing_over_one_set_leaves_the_one_beside_it(s3: S3) -> None:
    """`pack out.url=s3://bucket/oct[1] --force` destroyed s3://bucket/oct1."""
    source = ["phantom.patients=10", "phantom.slices=1", "phantom.height=64", "phantom.width=64"]
    config = ROOT / "configs/demo/pack.toml"
    for name in ("oct1", "oct[1]"):
        assert main(["pack", str(config), *source, f"out.url={s3.url}/{name}", "--quiet"]) == 0
    again = ["pack", str(config), *source, "phantom.seed=5", f"out.url={s3.url}/oct[1]", "--quiet", "--force"]
    assert main(again) == 0
    assert main(["verify", f"{s3.url}/oct1", "--quiet"]) == 0
    assert main(["verify", f"{s3.url}/oct[1]", "--quiet"]) == 0


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
        assert "there is no bucket no-such-bucket-here" in str(caught.value)
        assert "aws s3 mb s3://no-such-bucket-here" in str(caught.value)


def test_a_missing_bucket_is_told_by_whatever_looks_at_it(
    ceph_server: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(ceph_server, monkeypatch)
    for act in (storage.exists, storage.is_folder, storage.list_names, storage.size, storage.delete):
        with pytest.raises(StorageError, match="create it: aws s3 mb s3://no-such-bucket-here"):
            act("s3://no-such-bucket-here/a")


def test_no_credentials_are_one_line_that_says_what_to_set(
    ceph_server: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(ceph_server, monkeypatch)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(StorageError, match="no credentials were found; set AWS_ACCESS_KEY_ID"):
        storage.read_bytes("s3://some-bucket/a")


def test_a_wrong_clock_is_told_as_one(ceph: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are signed with a time; an hour's difference is refused as if the key were wrong."""
    late = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - datetime.timedelta(hours=1)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_, **__: late)
    with pytest.raises(StorageError, match="clock differs"):
        storage.list_names(ceph.url)


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
        assert {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY"}[wrong] in str(caught.value)


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


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_a_request_that_is_never_answered_is_sent_again(
    method: str, rclone_server: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    with chaos(with_new_bucket(rclone_server)) as proxy:
        use(proxy.s3, monkeypatch)
        url = f"{proxy.s3.url}/file"
        storage.write_bytes(url, b"before")
        proxy.set(rules=[{"fault": "stall", "methods": [method], "times": 1}])
        storage.write_bytes(url, b"after")
        assert storage.read_bytes(url) == b"after"
        assert proxy.faults() == 1
