"""Shards are read, and the run's folder is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from retfound_dist.doctor.store_checks import store_checks
from tests.doctor.checkups import small_checkup


def test_a_disk_is_read_and_written_and_nothing_is_left(tmp_path: Path) -> None:
    checkup = small_checkup(tmp_path)
    read, write = store_checks(checkup)
    assert (read.name, read.status) == ("store", "ok")
    assert (write.name, write.status) == ("store_write", "ok")
    assert read.value
    assert write.value
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]


def test_what_cannot_be_written_or_read_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    checkup = small_checkup(tmp_path)
    (tmp_path / "file").write_text("in the way")
    _, write = store_checks(replace(checkup, trial_url=str(tmp_path / "file" / "run")))
    assert write.status == "failed"
    assert "rank 0: cannot write" in write.text
    first = checkup.manifest.shards[0]
    for shard in checkup.manifest.shards:
        (tmp_path / "set" / shard.name).unlink()
    read, _ = store_checks(checkup)
    assert read.status == "failed"
    assert first.name.split("-")[0] in read.text
