"""Lists of very many runs."""

from __future__ import annotations

import gc
import io
import shutil
import sys
import threading
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.formats import run_summary
from retfound_dist.runs import long_lists, run_list
from retfound_dist.runs.long_lists import DelayedProgress, plain_table, read_each, without_collector
from tests.runs.made_runs import make_run, write_score


def test_many_runs_are_listed_as_a_few_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    first = make_run(str(tmp_path / "run0"))
    write_score(first, 50, 0.9)
    for place in range(1, 6):
        shutil.copytree(first, tmp_path / f"run{place}")
    make_run(str(tmp_path / "other"), "optim.base_lr=0.01", last=60)
    said = []
    for many in (200, 3):
        monkeypatch.setattr(run_list, "LONG_LIST", many)
        assert main(["runs", str(tmp_path)]) == 0
        said.append([line.split() for line in capsys.readouterr().out.splitlines()])
    assert said[0] == said[1]
    assert said[1][-1] == ["other", "differs:", "optim.base_lr=0.01"]
    for place in range(6):
        run_summary.refresh(str(tmp_path / f"run{place}"))
    assert main(["runs", str(tmp_path)]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == said[0]


def test_columns_stand_below_each_other() -> None:
    lines = list(plain_table(("run", "state", "step"), [("a", "finished", "5"), ("long", "x", "1000")]))
    assert lines == ["run   state     step", "a     finished     5", "long  x         1000"]


def test_runs_of_a_store_are_asked_for_at_the_same_time_and_one_fault_hides_no_other() -> None:
    together = threading.Barrier(4, timeout=20)

    def one(url: str) -> str:
        together.wait()
        if url.endswith("2"):
            raise ValueError("no run")
        return url

    told: list[tuple[int, int]] = []
    found = list(read_each([f"memory://b/{n}" for n in range(4)], one, lambda *both: told.append(both)))
    assert [str(each) for each in found] == ["memory://b/0", "memory://b/1", "no run", "memory://b/3"]
    assert isinstance(found[2], ValueError)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert list(read_each([], one)) == []


def test_what_takes_long_says_how_far_it_is_on_the_error_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    quick = DelayedProgress("reading runs")
    quick(1, 3)
    monkeypatch.setattr(long_lists, "PROGRESS_AFTER_S", -1.0)
    monkeypatch.setattr("retfound_dist.runtime.progress.PLAIN_EVERY_S", -1.0)
    monkeypatch.setattr("retfound_dist.runtime.progress.PLAIN_FIRST_S", -1.0)
    slow = DelayedProgress("reading runs")
    for done in (1, 2, 3):
        slow(done, 3)
    lines = sys.stderr.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line[:20] for line in lines] == [f"reading runs: {done} of 3" for done in (1, 2, 3)]


def test_the_collector_is_off_in_the_block_only_and_stays_off_where_it_was() -> None:
    assert gc.isenabled()
    with without_collector():
        with without_collector():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError), without_collector():
        raise ValueError
    assert gc.isenabled()
