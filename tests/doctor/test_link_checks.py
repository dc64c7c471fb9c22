"""Rates of ranks, their GPUs and their links."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.doctor import link_checks
from retfound_dist.doctor.link_checks import clock_result, link_check, rate_checks
from tests.doctor.checkups import small_checkup

COOL = ["1980", "1980", "45", "Not Active", "Not Active", "Not Active", "Not Active"]


def test_one_rank_has_no_links(tmp_path: Path) -> None:
    assert link_check(small_checkup(tmp_path)).status == "skipped"


def test_a_cpu_is_measured_and_what_needs_a_gpu_is_skipped(tmp_path: Path) -> None:
    rate, copy, clocks = rate_checks(small_checkup(tmp_path))
    assert (rate.name, rate.status) == ("matrix_rate", "ok")
    assert rate.value is not None
    assert rate.value > 0
    assert [(check.name, check.status, check.text) for check in (copy, clocks)] == [
        ("host_to_device", "skipped", "there is no GPU"),
        ("clocks", "skipped", "there is no GPU"),
    ]


def test_heat_and_power_are_told_and_an_idle_gpu_is_not_accused() -> None:
    assert clock_result([COOL, COOL]).status == "ok"
    hot = ["1200", "1980", "91", "Not Active", "Active", "Not Active", "Not Active"]
    check = clock_result([COOL, hot])
    assert check.status == "warning"
    assert "61% of its highest on rank 1, 91 degrees; held down (rank 1: hw_thermal_slowdown)" in check.text


def test_the_interfaces_of_this_machine_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert link_checks._interfaces().startswith("interfaces: ")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "none0")
    assert link_checks._interfaces() == "interfaces: only loopback"
