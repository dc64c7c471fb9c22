"""Damaged files of every kind in runs: each is told by file, none hides another run or ends a command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from retfound_dist.cli import main
from retfound_dist.formats import run_folder
from retfound_dist.runs.dashboard import make_app
from retfound_dist.runs.run_facts import read_run
from retfound_dist.runs.run_list import read_all
from tests.runs.made_runs import make_run, write_probes, write_score

FILES = (
    "config.json",
    "metrics.jsonl",
    "events.jsonl",
    "anomalies.jsonl",
    "alarms.jsonl",
    "evaluations/watch.json",
    "evaluations/step_00000050/metrics.json",
    "checkpoints/step_00000100/COMMIT.json",
    "LOCK.json",
)
LOGS = tuple(name for name in FILES if name.endswith(".jsonl"))
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a list": lambda good: b"[]\n",
    "null": lambda good: b"null\n",
    "a number": lambda good: b"7\n",
    "a text": lambda good: b'"x"\n',
    "an empty object": lambda good: b"{}\n",
    "cut": lambda good: good[: len(good) // 2] + b"\n",
    "deep": lambda good: b"[" * 100_000 + b"\n",
    "deep objects": lambda good: b'{"a":' * 100_000 + b"\n",
    "zero bytes": lambda good: b"\0" * 300 + b"\n",
    "not UTF-8": lambda good: good.replace(b'": "', b'": "\xff\xfe'),
    "NaN": lambda good: good.replace(b": 1", b": NaN"),
    "beyond floats": lambda good: good.replace(b": 1", b": 1e999"),
    "beyond integers": lambda good: good.replace(b'"step": ', b'"step": 99999999999999999999999999'),
    "texts for numbers": lambda good: good.replace(b": 1", b': "1'),
    "keys gone": lambda good: good.replace(b'"time"', b'"tame"').replace(b'"message"', b'"massage"'),
    "types swapped": lambda good: good.replace(b"{", b"[").replace(b"}", b"]"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every file that a list or a page reads."""
    url = str(tmp_path_factory.mktemp("made") / "good")
    make_run(url)
    run_folder.append_rows(
        url, run_folder.ANOMALIES, [{"kind": "spike", "step": 15, "loss": 3.0, "suspects": ["a"]}]
    )
    write_score(url, 50, 0.9)
    write_probes(url, {50: 0.8, 100: 0.9}, alarm="worse than its start at step 100")
    run_folder.append_rows(
        url,
        run_folder.EVENTS,
        [{"event": "checkpoint", "time": 1.79e9, "stall_s": 1.0, "bytes_of_rank_0": 9}],
    )
    lock = {"id": "1", "host": "n", "place": "n", "pid": 1, "job": "", "beat": 3}
    (Path(url) / "LOCK.json").write_text(json.dumps(lock))
    return Path(url)


@pytest.fixture
def damaged(good: Path, tmp_path: Path) -> Path:
    """That run beside copies of it, each with one file damaged in one way."""
    root = tmp_path / "runs"
    for kind, spoil in DAMAGE.items():
        for name in FILES:
            copy = root / f"{kind.replace(' ', '-')}--{name.replace('/', '-')}"
            _copy(good, copy)
            (copy / name).write_bytes(spoil((good / name).read_bytes()))
    _copy(good, root / "good")
    return root


def _copy(run: Path, target: Path) -> None:
    """The files of a run; shutil.copytree takes three times as long."""
    for path in run.rglob("*"):
        if path.is_file():
            where = target / path.relative_to(run)
            where.parent.mkdir(parents=True, exist_ok=True)
            where.write_bytes(path.read_bytes())


def test_every_damaged_run_is_a_row_and_the_good_one_too(
    damaged: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    assert main(["runs", str(damaged)]) == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1] for line in said.splitlines() if len(line.split()) > 7}
    names = {path.name for path in damaged.iterdir()}
    assert names <= rows.keys()
    assert rows["good"] == "finished"
    assert all(rows[name] == "damaged" for name in names if name in _configs(names))
    assert main(["runs", str(damaged), "--json"]) == 0
    told = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert told.keys() == names
    assert "config.json is damaged" in told["a-list--config.json"]["fault"]


def _configs(names: set[str]) -> set[str]:
    """Those whose config cannot be used; some damage finds nothing to spoil in one file or another."""
    kinds = ("a-list", "null", "an-empty-object", "cut", "deep", "zero-bytes", "not-UTF-8", "types-swapped")
    return {name for name in names if name.endswith("--config.json") and name.startswith(kinds)}


def test_damage_is_told_by_file_and_line(good: Path, damaged: Path) -> None:
    runs, faults = read_all(str(damaged))
    assert not [fault for fault in faults if "unexpected" in str(fault)]
    before = read_run(str(good))
    for run in runs:
        kind, _, name = run.name.partition("--")
        changed = name and any(
            (damaged / run.name / file).read_bytes() != (good / file).read_bytes()
            for file in FILES
            if file.replace("/", "-") == name
        )
        if not changed or name == "LOCK.json" or name == "config.json":
            assert not run.read_faults, (run.name, run.read_faults)
        elif kind != "keys-gone" and not (kind == "cut" and name in LOGS):
            assert run.read_faults, run.name
            (told,) = run.read_faults
            assert "line" in told, (run.name, told)
            assert "COMMIT.json" in told or name.split("-")[-1] in told, (run.name, told)
        if name not in LOGS:
            assert run.rows == before.rows


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_page_of_a_run_with_all_its_files_damaged_is_shown(kind: str, good: Path, tmp_path: Path) -> None:
    _copy(good, tmp_path / "run")
    for name in FILES[1:]:
        (tmp_path / "run" / name).write_bytes(DAMAGE[kind]((good / name).read_bytes()))
    browser = TestClient(make_app(str(tmp_path), every_s=0, cache_s=0), base_url="http://127.0.0.1")
    page = browser.get("/run?id=run")
    assert page.status_code == 200, page.text
    assert main(["report", str(tmp_path / "run"), "--no-pictures", "--quiet"]) == 0


def test_the_dashboard_shows_damaged_runs_as_rows_with_their_fault(damaged: Path) -> None:
    browser = TestClient(make_app(str(damaged), every_s=0, cache_s=0), base_url="http://127.0.0.1")
    page = browser.get("/")
    assert page.status_code == 200
    assert 'href="run?id=good"' in page.text
    assert "a-list--config.json" in page.text
    assert (
        "is a damaged run: its config.json is damaged or of another program: line 1: it is a list"
        in page.text
    )
    assert browser.get("/run?id=a-list--config.json").status_code == 404


def test_a_run_whose_config_was_deleted_is_a_row(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _copy(good, tmp_path / "bare")
    (tmp_path / "bare" / "config.json").unlink()
    assert main(["runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "bare  damaged" in said
    assert (
        "is a damaged run: it has checkpoints and events.jsonl and metrics.jsonl, and no config.json" in said
    )


def test_keys_of_a_later_version_are_no_damage(good: Path, tmp_path: Path) -> None:
    _copy(good, tmp_path / "run")
    for name in FILES:
        path = tmp_path / "run" / name
        path.write_bytes(path.read_bytes().replace(b"{", b'{"of_the_future": {"deep": [1, null]}, ', 1))
    assert read_run(str(tmp_path / "run")).read_faults == []


def test_another_format_is_refused_and_not_called_damaged(good: Path, tmp_path: Path) -> None:
    _copy(good, tmp_path / "run")
    commit = tmp_path / "run" / "checkpoints" / "step_00000100" / "COMMIT.json"
    commit.write_text(commit.read_text().replace('"format": 1', '"format": 2'))
    (told,) = read_run(str(tmp_path / "run")).read_faults
    assert "COMMIT.json has format 2, this version reads format 1" in told
    assert "damaged" not in told
