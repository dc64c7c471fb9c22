"""Saves to S3 and what readers find there: damage on the way, kill -9 between any two requests, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.errors import StorageError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.io import storage, verified_files
from retfound_dist.io.stores import s3_store
from retfound_dist.train.checkpoint.resume import choose_checkpoint
from tests.cluster import real_s3
from tests.cluster.real_faults import Chaos, chaos
from tests.cluster.real_s3 import S3
from tests.train.checkpoint.test_finalize import storm
from tests.train.saves import STEP, save, value_of


@pytest.fixture
def proxy(rclone_server: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chaos]:
    """A bucket behind a proxy; this process's environment is set to reach it."""
    with chaos(real_s3.with_new_bucket(rclone_server)) as seen:
        real_s3.use(seen.s3, monkeypatch)
        yield seen


def rule(fault: str, match: str, times: int = 1) -> dict[str, Any]:
    methods = ["PUT"] if fault == "damage" else ["GET"]
    return {"fault": fault, "methods": methods, "match": match, "times": times}


def test_killed_between_any_two_requests_of_a_save_over_a_commit_it_is_the_old_one_or_the_new_one(
    proxy: Chaos, tmp_path: Path
) -> None:
    def run_of(number: int) -> str:
        run = f"{proxy.s3.url}/run{number}"
        save(run, 1.0, str(tmp_path))
        return run

    found = storm(run_of, tmp_path)
    assert len(found) > 6
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1.0, 2.0)


@pytest.mark.parametrize("fault", ["damage", "flip"])
@pytest.mark.parametrize("match", ["/state-", "/parts-", "/model", "/COMMIT.json"])
def test_a_byte_that_flips_on_its_way_costs_no_save(
    fault: str, match: str, proxy: Chaos, tmp_path: Path
) -> None:
    run = f"{proxy.s3.url}/run"
    save(run, 1.0, str(tmp_path))
    proxy.set(rules=[rule(fault, match, 2)])
    held = save(run, 2.0, str(tmp_path))
    proxy.set(rules=[])
    assert fault == "flip" or proxy.faults() == 2  # what is verified by its ETag is not read
    assert value_of(held, tmp_path) == 2.0


def test_an_upload_that_always_arrives_damaged_ends_the_save_and_leaves_the_old_checkpoint(
    proxy: Chaos, tmp_path: Path
) -> None:
    run = f"{proxy.s3.url}/run"
    old = save(run, 1.0, str(tmp_path))
    proxy.set(rules=[rule("damage", "/state-", -1)])
    with pytest.raises(StorageError, match=r"arrived damaged: .*tried for 5 s|tried for 5 s"):
        save(run, 2.0, str(tmp_path))
    proxy.set(rules=[])
    assert checkpoint_folder.read_commit(old.url) == old
    assert value_of(old, tmp_path) == 1.0


@pytest.mark.parametrize("match", ["/state-", "/model", "/COMMIT.json"])
def test_a_byte_that_flips_while_a_start_reads_passes_over_nothing(
    match: str, proxy: Chaos, tmp_path: Path
) -> None:
    run, said = f"{proxy.s3.url}/run", list[str]()
    for step in (4, STEP):
        save(run, 1.0, str(tmp_path), step)
    proxy.set(rules=[rule("flip", f"step_{STEP:08d}{match}")])
    held = choose_checkpoint(run, "auto", said.append, 10).commit
    assert proxy.faults() == 1
    assert held is not None
    assert (held.step, said) == (STEP, [])


def test_a_file_is_known_by_the_checksum_of_a_store_that_has_one_and_is_not_read_back(
    ceph_server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with chaos(real_s3.with_new_bucket(ceph_server)) as seen:
        real_s3.use(seen.s3, monkeypatch)
        seen.set(rules=[rule("flip", "/file", -1)])
        for size in (100, 2 * s3_store.PART_BYTES, 2 * s3_store.PART_BYTES + 1):  # whole, in parts
            (tmp_path / "file").write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
            info = verified_files.upload_verified(str(tmp_path / "file"), f"{seen.s3.url}/file")
            assert info == storage.file_info(str(tmp_path / "file"))
        assert seen.faults() == 0


def test_a_checkpoint_that_may_not_be_read_is_not_passed_over(
    ceph_server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = real_s3.with_new_bucket(ceph_server)
    real_s3.use(server, monkeypatch)
    run, said = f"{server.url}/run", list[str]()
    for step in (4, STEP):
        save(run, 1.0, str(tmp_path), step)
    real_s3.deny(server, "s3:GetObject", f"run/checkpoints/step_{STEP:08d}/state-*")
    with pytest.raises(StorageError, match=r"step 8 cannot be read: .*access denied.*run.resume=STEP"):
        choose_checkpoint(run, "auto", said.append, 5)
    assert said == []
    held = choose_checkpoint(run, 4, said.append, 5).commit
    assert held is not None
    assert held.step == 4
