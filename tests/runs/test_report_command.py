"""`retfound report`: one self-contained page of a run, at any time."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.formats import run_folder
from retfound_dist.io import storage
from retfound_dist.runs.run_facts import read_run
from retfound_dist.runs.run_page import run_page
from tests.runs.made_runs import make_run, write_probes, write_score
from tests.runs.page_parser import Page


def test_a_page_holds_all_and_needs_nothing_else(tmp_path: Path) -> None:
    url = make_run(str(tmp_path / "run"))
    write_score(url, 100, 0.87)
    found = {"step": 35, "kind": "spike", "loss": 9.5, "suspects": ["patient-1"], "time": 0.0}
    run_folder.append_rows(url, run_folder.ANOMALIES, [found])
    assert main(["report", url, "--quiet"]) == 0
    page = Page((tmp_path / "run" / "report.html").read_text())
    assert all(link.startswith(("data:", "#")) for link in page.links)
    for text in (
        "Reconstruction loss", "held out", "Evaluations", "Progress", "Speed", "Data wait", "Learning rate",
        "0.870", "0.820 to 0.920", "2 ranks", "3 ranks", "Starts", "sudden rise of the loss", "patient-1", "GPU-hours",
        "NVIDIA H100", "2.15.0", "optim.base_lr", "0.004",
    ):  # fmt: skip
        assert text in page.text, text


def test_a_page_may_go_elsewhere(tmp_path: Path) -> None:
    url = make_run(str(tmp_path / "run"))
    assert main(["report", url, "--out", str(tmp_path / "elsewhere.html"), "--quiet", "--no-pictures"]) == 0
    assert (tmp_path / "elsewhere.html").exists()
    assert not (tmp_path / "run" / "report.html").exists()


def test_alarms_and_probes_of_a_watch_are_on_the_page_and_in_the_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = make_run(str(tmp_path / "run"))
    assert "Linear probe" not in run_page(read_run(url))
    write_probes(url, {50: 0.82, 100: 0.6}, "step 100 is worse than its own starting weights: <b>")
    page = run_page(read_run(url))
    assert "Linear probe" in page
    assert page.index('role="alert"') < page.index("Step 100 is worse") < page.index("Reconstruction loss")
    assert "<b>:" not in page
    capsys.readouterr()
    assert main(["runs", str(tmp_path)]) == 0
    assert "ALARM: run: step 100 is worse than its own starting weights" in capsys.readouterr().out


@pytest.mark.cluster
@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_a_browser_shows_the_page_without_a_word_of_complaint(tmp_path: Path, look: str) -> None:
    browser = shutil.which("chromium")
    assert browser, "chromium is not installed: .ci/install-system-packages"
    url = make_run(str(tmp_path / "run"))
    storage.write_text(str(tmp_path / "page.html"), run_page(read_run(url)))
    size = "390,844" if look == "phone" else "1280,900"
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--window-size={size}",
        "--enable-logging=stderr",
    ]
    flags += ["--force-dark-mode"] if look == "dark" else []
    done = subprocess.run(
        [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / 'page.png'}",
         f"file://{tmp_path / 'page.html'}"],
        capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert (tmp_path / "page.png").stat().st_size > 5000
    assert not re.search(r"CONSOLE|Uncaught", done.stderr)
