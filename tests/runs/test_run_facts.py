"""Reading a run from its folder: its state, and what is left out of damaged files."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from retfound_dist.cli import main
from retfound_dist.formats import run_folder
from retfound_dist.formats.score_files import ScoreFile
from retfound_dist.io import storage
from retfound_dist.runs.dashboard import make_app
from retfound_dist.runs.run_facts import LOCK, read_log, read_run, read_run_file
from tests.runs.made_runs import make_run

BROKEN: dict[str, list[str]] = {
    run_folder.METRICS: [
        "{",
        "}",
        "[]",
        '"x"',
        "{}",
        '{"step": "five"}',
        '{"step": 7}',
        '{"step": NaN}',
        "\x00\x01",
        "[" * 9999,
    ],
    run_folder.EVENTS: [
        "{}",
        '{"event": "start", "time": 1}',
        '{"event": "end"}',
        '{"event": 3, "time": 1}',
        "null",
    ],
    run_folder.ANOMALIES: ["{}", '{"step": 1}', "1"],
    run_folder.ALARMS: ["{}", '{"message": 5}'],
}
"""Lines that a disk, an editor or another program left in a run's logs."""


def test_a_run_tells_its_state(tmp_path: Path) -> None:
    finished = read_run(make_run(str(tmp_path / "finished")))
    stopped = read_run(make_run(str(tmp_path / "stopped"), last=60))
    failed = read_run(make_run(str(tmp_path / "failed"), last=60, ended=False))
    silent_url = make_run(str(tmp_path / "silent"), last=60, ended=False)
    running_url = make_run(str(tmp_path / "running"), last=60, ended=False, began=time.time() - 1000)
    for url in (silent_url, running_url):
        storage.write_json(storage.join(url, LOCK), {})
    states = [run.state for run in (finished, stopped, failed, read_run(silent_url), read_run(running_url))]
    assert states == ["finished", "stopped", "failed", "silent", "running"]


def test_a_run_that_never_started_is_listed(tmp_path: Path) -> None:
    storage.write_json(str(tmp_path / "config.json"), {"train": {"steps": 0, "epochs": 8.0, "log_every": 1}})
    run = read_run(str(tmp_path))
    assert (run.state, run.total_steps, run.step) == ("not started", None, 0)
    assert run.list_values["loss"] is None


def test_a_schedule_in_epochs_is_told_in_steps(tmp_path: Path) -> None:
    url = make_run(str(tmp_path / "run"), last=50)
    tree = storage.read_json(f"{url}/config.json")
    tree["train"] |= {"steps": 0, "epochs": 40.0}
    storage.write_json(f"{url}/config.json", tree)
    assert read_run(url).total_steps == 400


@pytest.mark.parametrize("name", list(BROKEN))
def test_broken_lines_of_a_log_are_left_out_counted_and_told(name: str, tmp_path: Path) -> None:
    url = make_run(str(tmp_path / "run"))
    before = read_run(url)
    with (tmp_path / "run" / name).open("a") as file:
        file.write("".join(line + "\n" for line in BROKEN[name]) + '{"step": 1000, "half')
    run = read_run(url)
    assert (run.rows, run.events, run.anomalies) == (before.rows, before.events, before.anomalies)
    count = len((tmp_path / "run" / name).read_text().splitlines()) - 1
    (told,) = run.read_faults
    assert told.startswith(
        f"{len(BROKEN[name])} of {count} lines of {name} cannot be read and are left out (the first "
    )
    assert f"line {count - len(BROKEN[name]) + 1}: " in told
    browser = TestClient(make_app(str(tmp_path), every_s=0, cache_s=0), base_url="http://127.0.0.1")
    assert "cannot be read and are left out" in browser.get("/run?id=run").text


def test_an_alarm_without_words_is_a_bad_line_of_a_report(tmp_path: Path) -> None:
    url = make_run(str(tmp_path / "run"))
    (tmp_path / "run" / "alarms.jsonl").write_text('{"message":""}\n')
    assert main(["report", url, "--no-pictures", "--quiet"]) == 0
    assert "1 of 1 lines of" in (tmp_path / "run" / "report.html").read_text()


def test_a_log_that_is_not_there_is_empty_and_one_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert read_log(str(tmp_path), run_folder.METRICS) == ([], "")
    (tmp_path / run_folder.METRICS).mkdir()
    rows, fault = read_log(str(tmp_path), run_folder.METRICS)
    assert rows == []
    assert fault.startswith("metrics.jsonl cannot be read: ")


def test_a_part_of_a_run_is_read_or_left_out_with_the_reason_and_without_the_run_s_url(
    tmp_path: Path,
) -> None:
    assert read_run_file(str(tmp_path), "metrics.json", ScoreFile) == (None, "")
    (tmp_path / "metrics.json").write_text('{"macro": {"auroc": 0.5}}')
    tree, fault = read_run_file(str(tmp_path), "metrics.json", ScoreFile)
    assert (dict(tree or {}), fault) == ({"macro": {"auroc": 0.5}}, "")
    (tmp_path / "metrics.json").write_text('{"macro": 5}')
    tree, fault = read_run_file(str(tmp_path), "metrics.json", ScoreFile)
    assert tree is None
    assert fault.startswith("metrics.json is damaged: line 1: macro is 5")
    assert fault.endswith("it is left out")
    assert str(tmp_path) not in fault
