"""`retfound runs`: what stands below a URL."""

import json
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.runs.run_facts import read_run
from retfound_dist.runs.run_search import find_runs
from tests.runs.made_runs import make_run, write_score


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
