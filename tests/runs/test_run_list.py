"""`retfound runs`: what stands below a URL."""

import json
import time
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.io import storage
from retfound_dist.runs.run_list import LOCK, config_differences, read_run, summary
from retfound_dist.runs.run_search import find_runs
from tests.runs.made_runs import make_run, write_score


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
    assert (run.state, run.steps, run.step) == ("not started", None, 0)
    assert summary(run)["loss"] is None


def test_a_schedule_in_epochs_is_told_in_steps(tmp_path: Path) -> None:
    url = make_run(str(tmp_path / "run"), last=50)
    tree = storage.read_json(f"{url}/config.json")
    tree["train"] |= {"steps": 0, "epochs": 40.0}
    storage.write_json(f"{url}/config.json", tree)
    assert read_run(url).steps == 400


def test_differences_are_those_from_what_most_runs_have() -> None:
    trees = {
        name: {"optim": {"base_lr": rate}, "run": {"url": name}, "data": {"workers": workers}}
        for name, rate, workers in (("a", 1, 1), ("b", 1, 2), ("c", 2, 3))
    }
    assert config_differences(trees) == {"a": {}, "b": {}, "c": {"optim.base_lr": 2}}
    two = {name: trees[name] for name in "bc"}
    assert config_differences(two) == {"b": {"optim.base_lr": 1}, "c": {"optim.base_lr": 2}}


def test_the_list_names_what_is_asked_for_and_fits_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    one = make_run(str(tmp_path / "one"))
    make_run(str(tmp_path / "two"), "optim.base_lr=0.01", last=60)
    write_score(one, 50, 0.9)
    write_score(one, 100, 0.8)
    assert main(["runs", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "0.900 @50" in lines[1]
    assert "100/100" in lines[1]
    assert lines[-2:] == ["one differs: optim.base_lr=0.004", "two differs: optim.base_lr=0.01"]
    assert main(["runs", str(tmp_path), "--json"]) == 0
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["one"]["best"] == {"score": "auroc", "value": 0.9, "step": 50}
    assert found["two"]["checkpoint"] == 50
    assert found["two"]["differences"] == {"optim.base_lr": 0.01}


def test_a_run_in_a_bucket_is_read_the_same(tmp_path: Path) -> None:
    local, remote = read_run(make_run(str(tmp_path / "x"))), read_run(make_run("memory://bucket/x"))
    assert local.rows == remote.rows
    assert find_runs("memory://bucket") == ["memory://bucket/x"]


def test_a_broken_run_is_named_and_the_others_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(str(tmp_path / "good"))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("{")
    assert main(["runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "good" in said
    assert "bad is not a run" in said


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path / "nothing")]) == 2
    assert main(["report", str(tmp_path)]) == 2
    assert main(["dashboard", str(tmp_path / "nothing")]) == 2
    assert "is an empty folder, not a run" in capsys.readouterr().err
