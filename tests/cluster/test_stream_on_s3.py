"""The stream on real S3 servers, whatever the servers and the wire do: the same batches."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from retfound_dist.cli import main
from retfound_dist.errors import StorageError
from retfound_dist.formats.shard_set import Manifest, read_index, read_manifest
from retfound_dist.io import storage
from retfound_dist.runtime.world import World
from retfound_dist.stream import MicroBatch, open_stream
from tests.cluster import real_s3
from tests.cluster.real_faults import Chaos, chaos
from tests.cluster.real_parts import clean_environment, need_root
from tests.cluster.real_s3 import S3
from tests.small_disks import disk_at
from tests.stream.stream_inputs import make_set
from tests.stream.test_batch_sheet import write_config

STEPS = 9


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The set on disk."""
    return make_set(tmp_path_factory.mktemp("local"), count=60)


@pytest.fixture(scope="module")
def expected(local: Manifest) -> list[MicroBatch]:
    """What every stream below must read."""
    return read(local)


def read(manifest: Manifest, **settings: Any) -> list[MicroBatch]:
    settings = {"workers": 0, "window_shards": 3, "patience_s": 60.0} | settings
    with open_stream(
        manifest, 10, seed=2, image_size=32, patches=4, stop_step=settings.pop("stop_step", STEPS), **settings
    ) as stream:
        return list(stream)


def upload(local: Manifest, server: S3) -> Manifest:
    """The same set on a server."""
    url = storage.join(server.url, "set")
    for name in sorted(os.listdir(local.url)):
        storage.put_file(os.path.join(local.url, name), storage.join(url, name))
    return read_manifest(url)


def assert_same(found: list[MicroBatch], expected: list[MicroBatch]) -> None:
    assert [part.keys for part in found] == [part.keys for part in expected]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.noise, other.noise)
    assert not [fault for part in found for fault in part.faults]


@pytest.fixture
def proxy(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chaos]:
    """Each server, seen through a proxy that nothing is asked of yet."""
    with chaos(s3) as seen:
        real_s3.use(seen.s3, monkeypatch)
        yield seen


@pytest.fixture
def remote(local: Manifest, proxy: Chaos) -> Manifest:
    """The set on each server, behind the proxy."""
    return upload(local, proxy.s3)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_set_on_s3_gives_the_batches_of_the_disk(
    remote: Manifest, expected: list[MicroBatch], workers: int
) -> None:
    assert_same(read(remote, workers=workers), expected)


@pytest.mark.parametrize("fault", ["503", "500", "reset", "early", "short", "flip"])
def test_faults_change_no_batch_and_are_counted(
    remote: Manifest, proxy: Chaos, expected: list[MicroBatch], fault: str
) -> None:
    proxy.set(seed=7, rules=[{"fault": fault, "share": 0.3, "match": "oct-"}])
    found = read(remote)
    proxy.set(rules=[])
    assert_same(found, expected)
    assert proxy.faults() >= 3
    assert sum(part.traffic.retries for part in found) >= 1


def test_latency_changes_no_batch(remote: Manifest, proxy: Chaos, expected: list[MicroBatch]) -> None:
    proxy.set(latency=0.2)
    assert_same(read(remote), expected)


def test_a_server_that_never_answers_one_request_is_asked_again(
    local: Manifest, rclone_server: S3, expected: list[MicroBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    with chaos(real_s3.with_new_bucket(rclone_server)) as proxy:
        real_s3.use(proxy.s3, monkeypatch)
        remote = upload(local, proxy.s3)
        proxy.set(rules=[{"fault": "stall", "times": 1, "match": ".tar"}])
        assert_same(read(remote), expected)
        assert proxy.faults() == 1


def test_a_server_killed_and_started_again_is_waited_for(
    local: Manifest, tmp_path: Path, expected: list[MicroBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = real_s3.new_credentials(f"http://127.0.0.1:{real_s3.free_ports(1)}")
    process = real_s3.start_rclone(server, tmp_path / "data")
    try:
        server = real_s3.with_new_bucket(server)
        real_s3.use(server, monkeypatch)
        remote = upload(local, server)
        found: list[MicroBatch] = []
        with open_stream(
            remote, 10, seed=2, image_size=32, patches=4, stop_step=STEPS, workers=0, window_shards=1
        ) as stream:
            batches = iter(stream)
            found += [next(batches), next(batches)]
            process.kill()
            process.wait()
            timer = threading.Timer(
                6, lambda: restarted.append(real_s3.start_rclone(server, tmp_path / "data"))
            )
            restarted: list[subprocess.Popen[bytes]] = []
            timer.start()
            found += batches
            timer.join()
        process = restarted[0]
        with open_stream(
            local, 10, seed=2, image_size=32, patches=4, stop_step=STEPS, workers=0, window_shards=1
        ) as stream:
            assert_same(found, list(stream))
        assert sum(part.traffic.retries for part in found) > 0
    finally:
        process.terminate()
        process.wait(10)


def test_a_server_that_stays_away_ends_in_one_line(
    remote: Manifest, proxy: Chaos, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.set(down=True)
    with pytest.raises(StorageError) as caught:
        read(remote, patience_s=2.0)
    text = str(caught.value)
    assert remote.url in text
    assert "\n" not in text
    assert proxy.s3.secret not in text


def spoil_in_store(remote: Manifest, shard: int, index: int) -> str:
    """Flips a bit of an image where it is kept; gives its name."""
    entry = read_index(remote.url, remote.shards[shard])[index]
    url = storage.join(remote.url, remote.shards[shard].name)
    data = bytearray(storage.read_bytes(url))
    data[entry.image_offset + 70] ^= 4
    storage.write_bytes(url, bytes(data))
    return f"{remote.shards[shard].name}/{entry.key}"


def test_a_bit_flipped_in_the_store_is_named_and_replaced_alike_at_every_world_size(remote: Manifest) -> None:
    bad = {spoil_in_store(remote, 1, 2), spoil_in_store(remote, 3, 0)}
    seen = []
    for size in (1, 2, 3):
        parts = [p for rank in range(size) for p in read(remote, world=World(rank, size), stop_step=6)]
        assert {fault.rsplit(".", 1)[0] for part in parts for fault in part.faults} == bad
        assert any("differs from its manifest" in note for part in parts for note in part.notes)
        seen.append([sorted(k for p in parts if p.step == step for k in p.keys) for step in range(6)])
    assert seen[0] == seen[1] == seen[2]
    assert not {name.split("/")[1] for name in bad} & {key for keys in seen[0] for key in keys}


def test_a_missing_shard_is_one_line_at_once(
    remote: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = remote.shards[0].name
    storage.delete(storage.join(remote.url, gone))
    one_line(
        ["batch", write_config(tmp_path, remote.url), "--step", "3", "train.global_batch=60"], capsys, gone
    )


def test_a_missing_bucket_is_one_line(s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one_line(
        ["batch", write_config(tmp_path, "s3://no-such-bucket-here/set"), "--step", "1"], capsys, "no-such-"
    )


def test_wrong_keys_are_one_line(
    local: Manifest,
    s3: S3,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remote = upload(local, s3)
    real_s3.use(dataclasses.replace(s3, secret="WRONG" + s3.secret), monkeypatch)
    text = one_line(["batch", write_config(tmp_path, remote.url), "--step", "1"], capsys, "credentials")
    assert s3.secret not in text


def one_line(command: list[str], capsys: pytest.CaptureFixture[str], word: str) -> str:
    """What a person is shown: exit 2 and one line with a word in it."""
    assert main(command) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert word in line
    return line


def test_credentials_and_endpoint_of_a_profile_are_used(
    local: Manifest, s3: S3, tmp_path: Path, expected: list[MicroBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = upload(local, s3)
    for name in s3.environment():
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text(
        f"[lab]\naws_access_key_id = {s3.key}\naws_secret_access_key = {s3.secret}\n"
    )
    (tmp_path / "config").write_text(
        f"[profile lab]\nregion = us-east-1\nendpoint_url = {s3.endpoint}\n"
        "response_checksum_validation = when_required\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    storage._filesystem.cache_clear()
    assert_same(read(remote), expected)


def test_a_full_disk_streams_and_says_so_once(
    remote: Manifest, expected: list[MicroBatch], tmp_path: Path
) -> None:
    need_root()
    with disk_at(tmp_path / "small", "size=40k") as small:
        found = read(remote, cache_dir=str(small))
        assert not list(small.glob("*.part"))
    assert_same(found, expected)
    said = {note for part in found for note in part.notes}
    assert len(said) == 1
    assert f"the disk at {small} is full" in said.pop()


READ_ALL = """
import sys
from retfound_dist.stream import open_stream
from retfound_dist.runtime.world import World
url, cache, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
world = World(rank, 2, rank, local_size=2)
with open_stream(url, 10, seed=2, image_size=32, patches=4, world=world, stop_step=9, workers=2,
                 window_shards=3, cache_dir=cache) as stream:
    for batch in stream:
        print(batch.step, ",".join(batch.keys), flush=True)
"""


def start_rank(remote: Manifest, server: S3, cache: Path, rank: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", READ_ALL, remote.url, str(cache), str(rank)],
        env=clean_environment(server.environment()), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(ranks: list[subprocess.Popen[str]]) -> dict[int, list[str]]:
    """Step -> keys of all ranks in slot order."""
    found: dict[int, list[str]] = {}
    for rank in ranks:
        out, _ = rank.communicate(timeout=120)
        assert rank.returncode == 0
        for line in out.splitlines():
            step, keys = line.split()
            found.setdefault(int(step), []).extend(keys.split(","))
    return found


def test_the_ranks_of_a_node_fetch_each_shard_once(
    remote: Manifest, proxy: Chaos, expected: list[MicroBatch], tmp_path: Path
) -> None:
    before = proxy.set(latency=0.02)["bytes"]
    ranks = [start_rank(remote, proxy.s3, tmp_path / "cache", rank) for rank in (0, 1)]
    assert finish(ranks) == {part.step: part.keys for part in expected}
    passed = proxy.set()["bytes"] - before
    once = sum(shard.bytes + shard.index.bytes for shard in remote.shards)
    single = 8 * 5 * max(shard.bytes // shard.samples for shard in remote.shards)  # while it was cold
    assert passed < 1.5 * once + single
    assert len(list((tmp_path / "cache").glob("*.tar"))) == len(remote.shards)


def test_a_reader_killed_while_it_fetches_leaves_nothing_that_hurts(
    remote: Manifest, proxy: Chaos, expected: list[MicroBatch], tmp_path: Path
) -> None:
    proxy.set(latency=0.3)
    dying = start_rank(remote, proxy.s3, tmp_path / "cache", 0)
    end = time.monotonic() + 60
    while not list((tmp_path / "cache").glob("*.part")):
        assert time.monotonic() < end
        time.sleep(0.01)
    dying.kill()
    dying.wait()
    proxy.set(latency=0.0)
    assert_same(read(remote, cache_dir=str(tmp_path / "cache")), expected)
    assert not list((tmp_path / "cache").glob("*.part"))
