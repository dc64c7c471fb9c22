"""What the doctor measures is what `retfound plan` uses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retfound_dist.doctor import measured_file
from retfound_dist.doctor.check_result import CheckResult
from retfound_dist.plan.measured_rates import measured_rate, measured_url, read_measured
from tests.doctor.checkups import small_checkup

CHECKS = [CheckResult("store", "ok", "fast", 900.0, "MB/s"), CheckResult("links", "skipped", "one rank")]


def test_a_rate_is_recorded_a_rank_and_found_by_device_and_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured_file, "device_name", lambda device: "NVIDIA H100 80GB HBM3")
    checkup = small_checkup(tmp_path, size=8, local_size=8)
    where = measured_file.record(checkup, CHECKS, 8000.0)
    assert where == measured_url(checkup.config.run.url) == str(tmp_path / "runs" / "measured.json")
    results, faults = read_measured(checkup.config.run.url)
    assert faults == []
    rate = measured_rate(results, "H100-80GB", checkup.config.model.name)
    assert rate is not None
    assert rate.images_per_s == 1000
    assert "measured.json of 20" in rate.source
    assert measured_rate(results, "A100-40GB", checkup.config.model.name) is None
    assert measured_rate(results, "H100-80GB", "vit_large_patch16") is None


def test_results_are_added_the_oldest_go_and_damage_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured_file, "MOST_RESULTS", 2)
    checkup = small_checkup(tmp_path)
    for rate in (1.0, 2.0, None):
        measured_file.record(checkup, CHECKS, rate)
    path = tmp_path / "runs" / "measured.json"
    results = json.loads(path.read_text())["results"]
    assert [len(result["rows"]) for result in results] == [2, 1]
    path.write_text("{")
    assert read_measured(checkup.config.run.url)[1]
    measured_file.record(checkup, CHECKS, 3.0)
    assert len(json.loads(path.read_text())["results"]) == 1


def test_there_is_nothing_beside_a_run_that_nobody_measured(tmp_path: Path) -> None:
    assert read_measured(str(tmp_path / "runs" / "one")) == ([], [])
    assert measured_url("one") == "./measured.json"
    assert measured_url("/one/") == "/measured.json"
    assert measured_url("s3://bucket/one") == "s3://bucket/measured.json"
