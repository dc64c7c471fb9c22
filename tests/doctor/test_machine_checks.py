"""Cores, memory, limits and disks of the hosts against what the run needs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from retfound_dist.doctor import machine_checks
from retfound_dist.doctor.machine_checks import HostFacts
from tests.doctor.checkups import small_checkup

GOOD = HostFacts("a", "NVIDIA H100", "570.1", 8, 500e9, 65536, 100e9, "/tmp", 1e12, 2e9)


def worse(**changes: float | str) -> list[HostFacts]:
    """Two hosts, of which the second has these facts."""
    return [GOOD, replace(GOOD, host="small-host", **changes)]  # type: ignore[arg-type]


def test_this_machine_is_measured(tmp_path: Path) -> None:
    checks = list(machine_checks.machine_checks(small_checkup(tmp_path)))
    names = ["device", "cores", "host_memory", "open_files", "shared_memory", "scratch"]
    assert [check.name for check in checks] == names
    assert checks[0].status == "warning"  # no GPU, and none was said to be missing
    assert "no GPU: 1 x CPU" in checks[0].text
    assert {check.status for check in checks[2:]} == {"ok"}
    assert machine_checks.write_rate(str(tmp_path), 1_000_000) > 0
    assert not list(tmp_path.glob("tmp*"))


def test_a_run_that_is_meant_for_the_cpu_is_not_warned(tmp_path: Path) -> None:
    checkup = small_checkup(tmp_path, "train.device=cpu")
    assert machine_checks.device_check([replace(GOOD, device="CPU")], checkup).status == "ok"
    mixed = machine_checks.device_check(worse(device="NVIDIA A100"), checkup)
    assert mixed.status == "failed"
    assert "1 x NVIDIA H100, 1 x NVIDIA A100 on 2 hosts" in mixed.text


@pytest.mark.parametrize(
    ("cores", "workers", "status"), [(72, 8, "ok"), (71, 8, "warning"), (8, 1, "warning")]
)
def test_each_loader_process_and_each_rank_wants_a_core(cores: int, workers: int, status: str) -> None:
    check = machine_checks.cores_check([replace(GOOD, cores=cores / 8)], workers)
    assert check.status == status
    assert ("data.workers=" in check.what_to_do) == (status == "warning" and workers > 1)


def test_too_little_of_anything_names_the_host_and_what_is_needed() -> None:
    memory = machine_checks.host_memory_check(worse(free_bytes=5e9), 6e9)
    shared = machine_checks.shared_memory_check(worse(shared_bytes=64e6), 2e9)
    scratch = machine_checks.scratch_check(worse(scratch_free=1e9), 6e9)
    for check in (memory, shared, scratch):
        assert check.status == "failed"
        assert "small-host" in check.text
        assert check.what_to_do
    assert "5 GB available on small-host; a save and the loaders need 6 GB" in memory.text
    files = machine_checks.open_files_check(worse(open_files=256))
    assert (files.status, files.value) == ("warning", 256)
    assert machine_checks.open_files_check(worse(open_files=math.inf)).status == "ok"


def test_a_slow_temporary_folder_is_warned_of() -> None:
    check = machine_checks.scratch_check(worse(scratch_rate=50e6), 6e9)
    assert check.status == "warning"
    assert "in about 2 min" in check.text
    # Ranks that are not the first of their host do not measure.
    assert machine_checks.scratch_check(worse(scratch_rate=0.0), 6e9).status == "ok"


def test_needs_follow_from_the_config(tmp_path: Path) -> None:
    few, many = (small_checkup(tmp_path, f"data.workers={n}", size=2, local_size=2) for n in (1, 3))
    assert machine_checks.host_bytes_needed(many) - machine_checks.host_bytes_needed(few) == pytest.approx(
        2 * 2 * machine_checks.WORKER_BYTES
    )
    assert machine_checks.shared_bytes_needed(many) == 3 * machine_checks.shared_bytes_needed(few)
    # The ranks of one host of two write half of the state.
    spread = small_checkup(tmp_path, size=4, local_size=2)
    assert machine_checks.scratch_bytes_needed(spread) == machine_checks.scratch_bytes_needed(few) / 2
