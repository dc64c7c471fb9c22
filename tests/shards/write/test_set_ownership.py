"""One set, one writer: a second pack, append or repair refuses, and a killed one is followed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.config.schema import PackConfig
from retfound_dist.errors import DataError
from retfound_dist.io import storage
from retfound_dist.records import folder_lock
from shards.append import append
from shards.pack import pack, plan_pack
from shards.repair import repair
from tests.pack_race import race
from tests.shards.pack_inputs import file_bytes, pack_config, write_classes, write_image

PACK_SLOWLY = """
import sys, time
from pathlib import Path
from retfound_dist.records import folder_lock
from retfound_dist.config.loading import build
from retfound_dist.config.schema import PackConfig
from shards.pack import pack
folder_lock.HEARTBEAT_S = 0.2
source, url, go = sys.argv[1:4]
def wait(done, total):
    if done == 8:
        print("packing", flush=True)
        while not Path(go).exists():
            time.sleep(0.01)
pack(build(PackConfig, {"source": {"path": source}, "out": {"url": url, "shard_mb": 0.02, "workers": 1}}, "test"), progress=wait)
"""


@pytest.fixture
def config(tmp_path: Path) -> PackConfig:
    return pack_config(write_classes(tmp_path / "images", {"A": 12, "B": 8}), tmp_path / "out")


@pytest.fixture
def other(tmp_path: Path, config: PackConfig) -> Iterator[subprocess.Popen[str]]:
    """Another process that is in the middle of packing to `out`; it goes on when `tmp_path/go` is there."""
    words = [f"{tmp_path}/images", config.out.url, f"{tmp_path}/go"]
    process = subprocess.Popen(
        [sys.executable, "-c", PACK_SLOWLY, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "packing\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_pack_refuses_in_one_line_and_the_first_ends_as_if_alone(
    config: PackConfig, other: subprocess.Popen[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = file_bytes(tmp_path / "out")
    words = [f"source.path={tmp_path}/images", f"out.url={config.out.url}", "out.seed=3"]
    assert main(["pack", "configs/pack_folder.toml", *words]) == 2
    said = capsys.readouterr().err.splitlines()
    assert f"is being packed by process {other.pid} on " in said[-1]
    assert "wait for it or stop it, or pack to another out.url" in said[-1]
    after = file_bytes(tmp_path / "out")
    assert {n: d for n, d in after.items() if n != folder_lock.LOCK} == {
        n: d for n, d in before.items() if n != folder_lock.LOCK
    }
    (tmp_path / "go").touch()
    assert other.wait(60) == 0
    pack(replace(config, out=replace(config.out, url=str(tmp_path / "alone"))))
    assert file_bytes(tmp_path / "out") == file_bytes(tmp_path / "alone")


def test_a_pack_that_waited_while_the_first_came_to_its_end_finds_the_set(
    config: PackConfig, other: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it decides was decided before it had the lock: it looks again."""
    monkeypatch.setattr(
        folder_lock.FolderLock, "_wait_for_silence", lambda *_: [(tmp_path / "go").touch(), other.wait(60)]
    )
    assert pack(config).samples == 20
    with pytest.raises(DataError, match="holds another shard set of"):
        pack(replace(config, out=replace(config.out, seed=3)))


@pytest.mark.parametrize("killed", [True, False])
def test_a_killed_pack_is_followed_at_once_and_a_sleeping_one_stops_when_it_wakes(
    config: PackConfig,
    other: subprocess.Popen[str],
    tmp_path: Path,
    killed: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(folder_lock, "STALE_AFTER_S", 1.5)
    os.kill(other.pid, signal.SIGKILL if killed else signal.SIGSTOP)
    if killed:
        other.wait()
    pack(config)
    assert ("waiting up to" in capsys.readouterr().err) != killed
    before = file_bytes(tmp_path / "out")
    assert folder_lock.LOCK not in before
    if killed:
        return
    (tmp_path / "go").touch()
    os.kill(other.pid, signal.SIGCONT)
    said = other.communicate(timeout=60)[1]
    assert other.returncode
    assert "is being packed by another process, which replaced this LOCK.json" in said
    assert file_bytes(tmp_path / "out") == before


def test_an_append_and_a_repair_refuse_while_another_process_packs(
    config: PackConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(config)
    write_image(tmp_path / "two" / "C" / "1.jpg", 5000)
    held = replace(folder_lock.this_holder({}), host="node7", place="node7", pid=4711)
    lock = tmp_path / "out" / folder_lock.LOCK
    lock.write_text(json.dumps(asdict(held)))
    before = file_bytes(tmp_path / "out")

    def beats(_: float) -> None:
        """The other process lives."""
        count = json.loads(lock.read_text())["beat"]
        lock.write_text(json.dumps({**asdict(held), "beat": count + 1}))

    monkeypatch.setattr(folder_lock.time, "sleep", beats)
    for write in (
        lambda: append(pack_config(tmp_path / "two", config.out.url)),
        lambda: repair(config, plan_pack(config), ["oct-000000.tar"]),
        lambda: pack(config, force=True),
    ):
        with pytest.raises(DataError, match="is being packed by process 4711 on node7"):
            write()
    lock.write_text(json.dumps(asdict(held)))
    assert file_bytes(tmp_path / "out") == before
    assert pack(config).samples == 20, "a set that is whole needs no lock"


def test_two_packs_of_one_job_are_rivals(config: PackConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's restart follows its earlier start by the job's name; two packs of a job run at once."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    named: list[str] = []
    pack(
        config,
        progress=lambda *_: named.append(storage.read_json(f"{config.out.url}/{folder_lock.LOCK}")["job"]),
    )
    assert set(named) == {""}


@pytest.mark.slow
def test_of_packs_that_begin_at_one_moment_one_alone_writes(config: PackConfig, tmp_path: Path) -> None:
    winners = race(config.source.path, config.out.url, tmp_path / "go", rivals=4)
    assert len(winners) == 1
    alone = replace(config, out=replace(config.out, url=str(tmp_path / "alone"), seed=winners[0]))
    pack(alone)
    assert file_bytes(tmp_path / "out") == file_bytes(tmp_path / "alone")


def test_the_lock_of_a_pack_that_was_killed_at_its_end_goes_with_the_next_start(
    config: PackConfig, tmp_path: Path
) -> None:
    pack(config)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for holder, stays in ((gone.pid, False), (os.getpid(), True)):
        lock = tmp_path / "out" / folder_lock.LOCK
        lock.write_text(json.dumps(asdict(replace(folder_lock.this_holder({}), pid=holder))))
        pack(config)
        assert lock.exists() == stays
