"""A whole run on S3 while bytes flip on their way there and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.formats import checkpoint_folder, run_folder
from retfound_dist.io import storage, verified_files
from retfound_dist.records import folder_lock
from retfound_dist.train.health.run_lock import RunLock, has_lost
from tests.cluster import real_s3
from tests.cluster.real_faults import Chaos, chaos
from tests.cluster.real_s3 import S3
from tests.stream.stream_inputs import make_set
from tests.train.launching import pretrain

STEPS, EVERY, STOP = 20, 8, 8
SAVED = [8, 16, 20]
SHARE = 0.15
"""Of all requests for the run's files, those that are hit beyond the ones that each save and the resume are sure of."""
SETTINGS = [
    "train.precision=fp32", "train.zero_stage=1", f"train.steps={STEPS}", f"checkpoint.every_steps={EVERY}", "checkpoint.keep_last=9",
]  # fmt: skip


@pytest.fixture
def proxy(rclone_server: S3) -> Iterator[Chaos]:
    """A bucket behind a proxy."""
    with chaos(real_s3.with_new_bucket(rclone_server)) as seen:
        yield seen


def rule(fault: str, match: str, **more: Any) -> dict[str, Any]:
    """Any bit of what is sent (`damage`) or read (`flip`); a listing has no checksum to be known by."""
    methods = ["PUT"] if fault == "damage" else ["GET"]
    return {
        "fault": fault,
        "methods": methods,
        "match": match,
        "unless": "list-type",
        "anywhere": True,
        **more,
    }


def sure() -> list[dict[str, Any]]:
    """Each save is hit, and each kind of file that a resume reads."""
    names = ("/state-", "/COMMIT.json")
    saves = [rule("damage", f"step_{step:08d}{name}", times=1) for step in SAVED for name in names]
    reads = [
        rule("flip", f"step_{STOP:08d}{name}", times=1) for name in ("/COMMIT.json", "/state-", "/model")
    ]
    return [*saves, *reads]


def test_a_run_and_its_resume_lose_nothing_while_bytes_flip_on_their_way(
    proxy: Chaos, rclone_server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards, run = make_set(tmp_path).url, f"{proxy.s3.url}/run"
    rest = [rule(fault, "/run/", share=SHARE) for fault in ("damage", "flip")]
    proxy.set(seed=1, rules=[*sure(), *rest])
    real_s3.use(proxy.s3, monkeypatch)
    for stop in (STOP, STEPS):
        done = pretrain(2, run, shards, *SETTINGS, f"train.stop_at_step={stop}")
        assert done.returncode == 0, done.stderr
        assert "skipping" not in done.stderr
    assert f"resuming at step {STOP}" in done.stderr
    told = proxy.set()
    assert [each for each in told["rules"] if each["times"] > 0] == []  # all that was sure to come came
    assert min(told["faults"].values()) > 10

    clean = real_s3.S3(rclone_server.endpoint, proxy.s3.key, proxy.s3.secret, proxy.s3.bucket)
    real_s3.use(clean, monkeypatch)
    assert checkpoint_folder.list_steps(run) == SAVED
    for step in SAVED:
        held = checkpoint_folder.read_commit(checkpoint_folder.checkpoint_url(run, step))
        assert held.state
        assert {
            name: verified_files.read_info(storage.join(held.url, name)) for name in held.files
        } == held.files
    rows = storage.read_bytes(f"{run}/metrics.jsonl").splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, STEPS + 1))


SMALL_FILES = ("/config.json", "/LOCK.json")


@pytest.mark.parametrize("fault", ["damage", "flip"])
@pytest.mark.parametrize("name", SMALL_FILES)
def test_a_bit_that_flips_in_a_small_file_ends_no_start(
    fault: str, name: str, proxy: Chaos, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_s3.use(proxy.s3, monkeypatch)
    tree = {"train": {"steps": 20}, "model": {"name": "vit_demo_patch14"}}
    monkeypatch.setattr(folder_lock, "RACE_PAUSE_S", 0.01)
    for number in range(6):  # other bits of it
        run = f"{proxy.s3.url}/run{number}"
        proxy.set(seed=number, rules=[rule(fault, name, times=1)])
        for _ in range(2):  # begun, and gone on with
            lock = RunLock(run, print)
            lock.acquire()
            lock.check_still_held()
            assert not has_lost(run, lock.id)
            assert run_folder.check_same_run(run, tree) == storage.exists(f"{run}/config.json")
            run_folder.write_config(run, tree)
            lock.release()
            assert not storage.exists(f"{run}/LOCK.json")
        assert proxy.set()["rules"][0]["times"] == 0
        assert run_folder.read_config(run) == tree
