"""The pages of runs: what a page holds, what it warns of, and what its time cost."""

from pathlib import Path

import pytest

from retfound_dist.formats import run_folder
from retfound_dist.runs.run_facts import read_run
from retfound_dist.runs.run_page import compare_page, cost_table, gpu_hours, run_id, run_page, warnings
from tests.runs.made_runs import make_run
from tests.runs.page_parser import Page


@pytest.mark.parametrize("last", [0, 5, 55])
def test_a_page_is_drawn_at_any_time(tmp_path: Path, last: int) -> None:
    url = make_run(str(tmp_path / "run"), last=last or 5, parts=(1,), ended=False)
    if not last:
        for name in (run_folder.METRICS, run_folder.EVENTS):
            (tmp_path / "run" / name).unlink()
    page = Page(run_page(read_run(url)))
    assert ("Nothing is logged yet" in page.text) == (not last)


def test_cost_is_wall_time_times_ranks_and_its_price(tmp_path: Path) -> None:
    run = read_run(make_run(str(tmp_path / "run"), parts=(2, 3)))
    assert gpu_hours(run) * 3600 == pytest.approx(2 * 520 + 3 * 521)
    told = dict(cost_table(run, 2.0))
    assert told["Price"].startswith(f"{gpu_hours(run) * 2:.2f}")
    assert told["Not running"].startswith("280 s") or told["Not running"].startswith("5 min")


def test_over_fitting_is_said(tmp_path: Path) -> None:
    rises = make_run(str(tmp_path / "rises"), held_out={50: 0.5, 100: 0.6})
    falls = make_run(str(tmp_path / "falls"), held_out={50: 0.5, 100: 0.499})
    assert any("held-out loss rises" in line for line in warnings(read_run(rises)))
    assert not warnings(read_run(falls))


def test_a_run_that_failed_says_so(tmp_path: Path) -> None:
    run = read_run(make_run(str(tmp_path / "run"), last=55, ended=False))
    assert "ended unexpectedly" in warnings(run)[0]


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


def test_two_runs_are_compared_by_what_differs_but_for_where_they_are(tmp_path: Path) -> None:
    one = read_run(make_run(str(tmp_path / "one")))
    two = read_run(make_run(str(tmp_path / "two"), "optim.base_lr=0.01", last=60))
    page = Page(compare_page(one, two))
    for text in ("one and two", "optim.base_lr", "0.004", "0.01", "100 of 100", "60 of 100"):
        assert text in page.text, text
    assert "run.url" not in page.text


def test_a_run_is_named_by_its_url_below_the_one_that_is_served() -> None:
    assert run_id("s3://bucket/runs", "s3://bucket/runs/a/b") == "a/b"
    assert run_id("s3://bucket/runs/", "s3://bucket/runs/a/") == "a"
    assert run_id("/runs", "/runs") == ""
