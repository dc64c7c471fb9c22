"""Packing, appending and repairing straight on real S3 servers, whatever the servers and the wire do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.cli import main
from retfound_dist.config.loading import build
from retfound_dist.config.schema import PackConfig
from retfound_dist.errors import StorageError
from retfound_dist.io import storage
from retfound_dist.records.exclusive_write import WriteResult, write_new
from shards.append import append
from shards.pack import pack, plan_pack
from shards.repair import repair
from shards.verify import inspect_set, verify
from shards.write import committed_shards
from shards.write.set_ownership import ShardNames
from tests import ROOT
from tests.cluster import real_s3
from tests.cluster.real_faults import Chaos, chaos
from tests.cluster.real_parts import clean_environment
from tests.cluster.real_s3 import S3
from tests.pack_race import race

WRITES = ["PUT", "POST", "DELETE"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources of small pictures."""
    root = tmp_path_factory.mktemp("images")
    for number in range(50):
        draw(root / ("one" if number < 34 else "two") / "A" / f"{number}.png", number)
    return root


def draw(path: Path, seed: int, height: int = 48, width: int = 64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **({"compress_level": 0} if height > 500 else {}))


def config_of(source: Path, url: Path | str, workers: int = 1, shard_mb: float = 0.04) -> PackConfig:
    out = {"url": str(url), "shard_mb": shard_mb, "workers": workers}
    return build(
        PackConfig,
        {"source": {"path": str(source)}, "out": out, "split": {"fractions": [0.5, 0.3, 0.2]}},
        "test",
    )


def content(url: Path | str) -> dict[str, bytes]:
    names = storage.list_names(str(url))
    return {name: storage.read_bytes(storage.join(str(url), name)) for name in names}


@pytest.fixture
def proxy(rclone_server: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chaos]:
    """A server, seen through a proxy that nothing is asked of yet."""
    with chaos(real_s3.with_new_bucket(rclone_server)) as seen:
        real_s3.use(seen.s3, monkeypatch)
        yield seen


@pytest.mark.parametrize("workers", [1, 2])
def test_a_set_packed_and_appended_on_s3_is_the_set_on_disk(
    s3: S3, images: Path, tmp_path: Path, workers: int
) -> None:
    for url in (tmp_path / "set", f"{s3.url}/sets/set"):
        pack(config_of(images / "one", url, workers))
        append(config_of(images / "two", url, workers))
    assert content(f"{s3.url}/sets/set") == content(tmp_path / "set")
    assert verify(f"{s3.url}/sets/set", 2) == []


def test_bad_shards_on_s3_are_found_and_rebuilt_there(s3: S3, images: Path) -> None:
    config = config_of(images / "one", f"{s3.url}/set")
    pack(config)
    before = content(config.out.url)
    tars = [name for name in before if name.endswith(".tar")]
    storage.delete(f"{s3.url}/set/{tars[0]}")
    storage.write_bytes(f"{s3.url}/set/{tars[1]}", before[tars[1]][:-3000])
    storage.delete(f"{s3.url}/set/{tars[2].replace('.tar', '.idx')}")
    report = inspect_set(config.out.url, 2)
    assert sorted(report.bad_shards) == tars[:3]
    assert repair(config, plan_pack(config), report.bad_shards) == tars[:3]
    assert content(config.out.url) == before
    assert inspect_set(config.out.url, 2).faults == ()


def test_of_packs_that_begin_at_one_moment_one_alone_writes(s3: S3, images: Path, tmp_path: Path) -> None:
    """Ceph lets one lock through; rclone takes all, and the packs find out by reading."""
    source, env = str(images / "one"), clean_environment(s3.environment())
    winners = race(source, f"{s3.url}/set", tmp_path / "go", rivals=4, env=env)
    assert len(winners) == 1
    out = {"url": str(tmp_path / "alone"), "shard_mb": 0.02, "workers": 1, "seed": winners[0]}
    pack(build(PackConfig, {"source": {"path": source}, "out": out}, "test"))
    assert content(f"{s3.url}/set") == content(tmp_path / "alone")


def test_a_lock_is_put_where_none_stands_and_a_store_that_ignores_the_condition_is_found_out(
    s3: S3, request: pytest.FixtureRequest
) -> None:
    honours = "ceph" in request.node.name
    where = f"{s3.url}/set/LOCK.json"
    assert write_new(where, b"one") is (WriteResult.NEW if honours else WriteResult.UNCERTAIN)
    assert write_new(where, b"two") is (WriteResult.EXISTS if honours else WriteResult.UNCERTAIN)
    assert storage.read_bytes(where) == (b"one" if honours else b"two")


def test_a_set_on_s3_that_is_replaced_stands_until_the_new_one_is_committed(
    s3: S3, images: Path, tmp_path: Path
) -> None:
    url = f"{s3.url}/set"
    pack(config_of(images / "two", url))
    before = content(url)

    def look(done: int, total: int) -> None:
        if done < total:
            assert done % 16 or content(url).items() >= before.items()
        else:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(config_of(images / "one", url), force=True, progress=look)
    assert content(url).items() >= before.items()
    report = inspect_set(url, 1)
    assert report.faults == ()
    assert "belong to an unfinished pack, not to this set" in report.notes[0]
    pack(config_of(images / "two", tmp_path / "set"))
    for place in (url, tmp_path / "set"):
        pack(config_of(images / "one", place), force=True)
    assert content(url) == content(tmp_path / "set")
    assert not before.keys() & {name for name in content(url) if name.endswith((".tar", ".idx"))}
    assert verify(url, 1) == []


@pytest.mark.parametrize("faults", [("503", "500"), ("lost",)])
def test_faults_while_packing_and_appending_are_asked_again_and_change_no_byte(
    proxy: Chaos, images: Path, tmp_path: Path, faults: tuple[str, ...]
) -> None:
    for url in (tmp_path / "set", f"{proxy.s3.url}/set"):
        pack(config_of(images / "one", url))
        append(config_of(images / "two", url))
        each = {"share": 0.25 / len(faults), "methods": ["GET", *WRITES]}
        proxy.set(seed=3, rules=[{"fault": fault, **each} for fault in faults])
    met = proxy.set(rules=[])["faults"]
    assert content(f"{proxy.s3.url}/set") == content(tmp_path / "set")
    assert all(met.get(fault, 0) >= 5 // len(faults) for fault in faults), met


def test_a_server_that_goes_away_is_one_line_and_the_same_command_goes_on(
    proxy: Chaos,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(storage, "ATTEMPTS", 2)  # of eight, which take two minutes
    pack(config_of(images / "one", tmp_path / "set"))
    config, url = config_of(images / "one", f"{proxy.s3.url}/set"), f"{proxy.s3.url}/set"

    def go_away(done: int, total: int) -> None:
        if done == 20:
            proxy.set(down=True)

    with pytest.raises(StorageError) as caught:
        pack(config, progress=go_away)
    assert url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert proxy.s3.secret not in str(caught.value)
    proxy.set(down=False)
    assert committed_shards.recover_shards(url, ShardNames("oct"), plan_pack(config))
    assert "manifest.json" not in storage.list_names(url)
    pack(config)
    assert content(url) == content(tmp_path / "set")


def test_a_large_shard_goes_up_in_parts_and_what_a_kill_leaves_of_them_is_dropped(
    ceph_server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = real_s3.with_new_bucket(ceph_server)
    real_s3.use(server, monkeypatch)
    for number in range(20):
        draw(tmp_path / "images" / f"{number}.png", number, 2000, 2000)
    words = [f"source.path={tmp_path}/images", "image.format=png", f"out.url={server.url}/set"]
    command = [sys.executable, "-m", "retfound_dist", "pack", str(ROOT / "configs/pack_folder.toml"), *words]
    env = clean_environment(server.environment())
    process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    fs, end = storage.open_fs(server.url)[0], time.monotonic() + 120
    while not uploads(fs, server.bucket):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert uploads(fs, server.bucket)
    assert main(["pack", *command[4:]]) == 0
    assert not uploads(fs, server.bucket)
    assert int(fs.info(f"{server.url}/set/oct-000000.tar")["ETag"].strip('"').split("-")[1]) >= 2
    assert verify(f"{server.url}/set", 1) == []


def uploads(fs: object, bucket: str) -> list[object]:
    """Files in parts that are not finished."""
    return fs.call_s3("list_multipart_uploads", Bucket=bucket).get("Uploads", [])  # type: ignore[attr-defined]


def test_bits_that_flip_while_a_set_is_written_change_no_file_of_it(
    proxy: Chaos, images: Path, tmp_path: Path
) -> None:
    expected = content(pack(config_of(images / "one", tmp_path / "set")).url)
    files = (".tar", ".idx", "manifest.json", "DATACARD.md", "quality.html")
    damage = [
        {"fault": "damage", "methods": ["PUT"], "match": f"{name}", "times": 1, "anywhere": True}
        for name in files
    ]
    proxy.set(rules=damage)
    url = pack(config_of(images / "one", f"{proxy.s3.url}/set")).url
    assert [each["match"] for each in proxy.set()["rules"] if each["times"] > 0] == []
    proxy.set(rules=[])
    assert content(url) == expected
