"""A run whose bucket fails it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from retfound_dist.formats import checkpoint_folder
from retfound_dist.io import storage
from retfound_dist.train.ranks.watchdog import RESTART_FILE_VARIABLE
from tests.cluster import real_s3
from tests.cluster.real_faults import Chaos, chaos
from tests.cluster.real_parts import wait_until
from tests.cluster.real_s3 import S3
from tests.stream.stream_inputs import make_set
from tests.train.launching import pretrain, start

SETTINGS = ["train.precision=fp32", "train.steps=100000", "checkpoint.every_steps=5"]


@pytest.fixture
def proxy(rclone_server: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chaos]:
    """A bucket behind a proxy; this process's environment is set to reach it."""
    with chaos(real_s3.with_new_bucket(rclone_server)) as seen:
        real_s3.use(seen.s3, monkeypatch)
        yield seen


def test_a_bucket_that_is_gone_for_good_ends_the_run_and_names_the_last_good_checkpoint(
    proxy: Chaos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards, run, wanted = make_set(tmp_path).url, f"{proxy.s3.url}/run", tmp_path / "start_again"
    monkeypatch.setenv(RESTART_FILE_VARIABLE, str(wanted))
    process = start(2, run, shards, *SETTINGS, "checkpoint.patience_s=5")
    wait_until(lambda: len(checkpoint_folder.list_steps(run)) > 1, 120, "two commits")
    proxy.set(down=True)
    _, said = process.communicate(timeout=300)
    proxy.set(down=False)
    assert process.returncode != 0
    assert wanted.exists()  # Slurm starts it again: it is the store that failed
    line = [line for line in said.splitlines() if line.startswith("retfound: ")][-1]
    last = checkpoint_folder.list_steps(run)[-1]
    assert f"could not be saved, the last good one is of step {last}:" in line
    again = pretrain(1, run, shards, *SETTINGS, f"train.stop_at_step={last + 3}")
    assert again.returncode == 0, again.stderr
    assert f"resuming at step {last}" in again.stderr
    assert checkpoint_folder.list_steps(run)[-1] == last + 3


def test_a_store_that_will_not_delete_costs_room_and_no_checkpoint(
    ceph_server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = real_s3.with_new_bucket(ceph_server)
    real_s3.use(server, monkeypatch)
    real_s3.deny(server, "s3:DeleteObject", "run/checkpoints/*")
    run = f"{server.url}/run"
    settings = [*SETTINGS, "checkpoint.patience_s=10", "checkpoint.keep_last=1"]
    done = pretrain(1, run, make_set(tmp_path).url, *settings, "train.stop_at_step=10")
    assert done.returncode == 0, done.stderr
    assert checkpoint_folder.list_steps(run) == [5, 10]
    assert "step 5 is saved, but older files could not be removed: cannot delete" in done.stderr
    assert any(
        name.startswith("parts-") for name in storage.list_names(checkpoint_folder.checkpoint_url(run, 5))
    )


def test_a_bucket_that_comes_back_is_waited_for_while_training_goes_on(proxy: Chaos, tmp_path: Path) -> None:
    shards, run = make_set(tmp_path).url, f"{proxy.s3.url}/run"
    process = start(1, run, shards, *SETTINGS, "train.stop_at_step=40")
    wait_until(lambda: len(checkpoint_folder.list_steps(run)) > 0, 120, "a commit")
    proxy.set(down=True)
    time.sleep(5)
    proxy.set(down=False)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert checkpoint_folder.list_steps(run)[-1] == 40
    rows = storage.read_bytes(f"{run}/metrics.jsonl").splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, 41))
    assert not storage.exists(f"{run}/LOCK.json")
    assert os.environ["AWS_ACCESS_KEY_ID"] not in said
