"""`retfound report`: one self-contained page of a run, at any time."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.formats import run_folder
from retfound_dist.io import storage
from retfound_dist.runs.reconstructions import spread
from retfound_dist.runs.run_list import read_run
from retfound_dist.runs.run_page import cost, gpu_hours, run_page, warnings
from tests.runs.made_runs import make_run, write_probes, write_score


class Page(HTMLParser):
    """Text, links, and whether tags are closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.links, self.open = "", [], []  # type: ignore[var-annotated]
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "img", "br", "input", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_holds_all_and_needs_nothing_else(tmp_path: Path) -> None:
    url = make_run(str(tmp_path / "run"))
    write_score(url, 100, 0.87)
    found = {"step": 35, "kind": "spike", "loss": 9.5, "suspects": ["patient-1"], "time": 0.0}
    run_folder.append_rows(url, run_folder.ANOMALIES, [found])
    assert main(["report", url, "--quiet"]) == 0
    page = Page((tmp_path / "run" / "report.html").read_text())
    assert all(link.startswith(("data:", "#")) for link in page.links)
    for text in (
        "Reconstruction loss", "held out", "Evaluations", "Course", "Speed", "Data wait", "Learning rate",
        "0.870", "0.820 to 0.920", "2 ranks", "3 ranks", "Starts", "the loss leapt", "patient-1", "GPU-hours",
        "NVIDIA H100", "2.15.0", "optim.base_lr", "0.004",
    ):  # fmt: skip
        assert text in page.text, text


@pytest.mark.parametrize("last", [0, 5, 55])
def test_a_page_is_drawn_at_any_time(tmp_path: Path, last: int) -> None:
    url = make_run(str(tmp_path / "run"), last=last or 5, parts=(1,), ended=False)
    if not last:
        for name in (run_folder.METRICS, run_folder.EVENTS):
            (tmp_path / "run" / name).unlink()
    page = Page(run_page(read_run(url)))
    assert ("Nothing is logged yet" in page.text) == (not last)


def test_a_page_may_go_elsewhere(tmp_path: Path) -> None:
    url = make_run(str(tmp_path / "run"))
    assert main(["report", url, "--out", str(tmp_path / "elsewhere.html"), "--quiet", "--no-pictures"]) == 0
    assert (tmp_path / "elsewhere.html").exists()
    assert not (tmp_path / "run" / "report.html").exists()


def test_cost_is_wall_time_times_ranks_and_its_price(tmp_path: Path) -> None:
    run = read_run(make_run(str(tmp_path / "run"), parts=(2, 3)))
    assert gpu_hours(run) * 3600 == pytest.approx(2 * 520 + 3 * 521)
    told = dict(cost(run, 2.0))
    assert told["Price"].startswith(f"{gpu_hours(run) * 2:.2f}")
    assert told["Nothing ran"].startswith("280 s") or told["Nothing ran"].startswith("5 min")


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


def test_over_fitting_is_said(tmp_path: Path) -> None:
    rises = make_run(str(tmp_path / "rises"), held_out={50: 0.5, 100: 0.6})
    falls = make_run(str(tmp_path / "falls"), held_out={50: 0.5, 100: 0.499})
    assert any("held-out loss rises" in line for line in warnings(read_run(rises)))
    assert not warnings(read_run(falls))


def test_a_run_that_failed_says_so(tmp_path: Path) -> None:
    run = read_run(make_run(str(tmp_path / "run"), last=55, ended=False))
    assert "ended without a word" in warnings(run)[0]


def test_a_step_that_went_wrong_in_two_starts_is_told_once(tmp_path: Path) -> None:
    url = make_run(str(tmp_path / "run"))
    found = {"step": 45, "kind": "skipped", "loss": None, "suspects": ["patient-1"], "time": 0.0}
    run_folder.append_rows(url, run_folder.ANOMALIES, [found, found | {"time": 9.0}])
    assert run_page(read_run(url)).count("patient-1") == 1


def test_markup_in_what_is_logged_stays_text(tmp_path: Path) -> None:
    url = make_run(str(tmp_path / "run"))
    found = {"step": 5, "kind": "spike", "loss": 1.0, "suspects": ["<script>alert(1)</script>"], "time": 0.0}
    run_folder.append_rows(url, run_folder.ANOMALIES, [found])
    assert "<script>alert" not in run_page(read_run(url))


def test_pictures_are_of_the_first_the_last_and_some_between() -> None:
    assert spread([10, 20]) == [10, 20]
    assert spread(list(range(1, 101)), 5) == [1, 26, 50, 75, 100] or spread(list(range(1, 101)), 5)[0] == 1
    assert spread(list(range(1, 101)), 5)[-1] == 100
    assert len(spread(list(range(1, 101)), 5)) == 5


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
