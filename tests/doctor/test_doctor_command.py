"""The whole doctor on real ranks: what it prints, records and leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from retfound_dist.doctor.check_result import CheckResult
from retfound_dist.doctor.doctor_command import DoctorOptions, doctor_command, doctor_page, verdict
from retfound_dist.errors import ConfigError
from tests import ROOT
from tests.browser import assert_fits
from tests.doctor.checkups import CONFIG, settings, small_checkup

NAMES = {
    "device", "cores", "host_memory", "open_files", "shared_memory", "scratch", "links", "matrix_rate",
    "host_to_device", "clocks", "store", "store_write", "numerics", "waits", "graph", "step", "memory",
    "checkpoint", "resume", "loader",
}  # fmt: skip
CHECKS = [
    CheckResult("store", "ok", "fast", 900.0, "MB/s"),
    CheckResult("step", "failed", "rank 1: no <room>", what_to_do="make room"),
]


def doctor(folder: Path, *more: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    """`retfound doctor` on so many ranks."""
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    )
    command = [sys.executable, *launcher, "-m", "retfound_dist", "doctor", CONFIG, *settings(folder), *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "--minutes", "0.2"],
        capture_output=True, text=True, cwd=ROOT, env=environment, timeout=500, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_two_ranks_are_checked_and_nothing_of_the_trial_is_left(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    done = doctor(tmp_path, "--json", "--html", str(tmp_path / "doctor.html"), ranks=2)
    assert done.returncode in (0, 1), done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert set(checks) == NAMES
    assert {checks[name]["status"] for name in ("links", "numerics", "step", "checkpoint", "resume")} == {
        "ok"
    }
    assert (done.returncode == 1) == any(check["status"] == "failed" for check in checks.values())
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["measured.json"]
    assert "2 ranks on 1 host" in (tmp_path / "doctor.html").read_text()


@pytest.mark.slow
def test_a_failed_check_is_exit_1_and_names_what_to_do(tmp_path: Path) -> None:
    done = doctor(tmp_path, f"model.init={tmp_path / 'none.pth'}")
    assert done.returncode == 1, done.stderr
    assert "Do not start the run before step is mended" in done.stdout
    assert "none.pth" in done.stdout
    assert "to do: " in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [({"html": "page.txt"}, r"ends in \.html"), ({"minutes": 0.0}, "--minutes 0: give a number above 0")],
)
def test_wrong_options_are_refused_before_the_ranks_join(
    options: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        doctor_command(DoctorOptions(CONFIG, settings(tmp_path), **options))  # type: ignore[arg-type]


def test_only_rank_0_prints_an_error_that_all_ranks_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = DoctorOptions(CONFIG, settings(tmp_path), minutes=0.0)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert doctor_command(options) == 2
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError):
        doctor_command(options)


def test_the_page_shows_the_worst_first_and_escapes_what_is_measured(tmp_path: Path) -> None:
    page = doctor_page(small_checkup(tmp_path), CHECKS)
    assert page.index("To do: make room") < page.index("fast")
    assert "no &lt;room&gt;" in page
    assert verdict(CHECKS) in page.replace("&#39;", "'")
    assert verdict(CHECKS[:1]) == "1 check: 1 ok"


@pytest.mark.cluster
def test_the_page_opens_on_a_phone_and_on_a_desk_without_complaint(tmp_path: Path) -> None:
    path = tmp_path / "doctor.html"
    path.write_text(doctor_page(small_checkup(tmp_path), CHECKS * 10))
    assert_fits(path, tmp_path, images=0)
