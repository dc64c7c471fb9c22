"""What other programs leave below a URL hides no run, and is named."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from retfound_dist.cli import main
from retfound_dist.formats.run_config import MAX_CONFIG_BYTES
from retfound_dist.runs.dashboard import make_app
from retfound_dist.runs.run_search import find_runs, search_runs
from tests.runs.made_runs import make_run

STRANGE = {
    "of timm": json.dumps({"architecture": "vit_large_patch16_224", "num_classes": 0}),
    "a list": "[1, 2]",
    "a number": "3",
    "nothing": "",
    "half": '{"train": {"steps": 1',
    "train is text": '{"train": "yes"}',
    "train of others": '{"train": {"lr": 0.1}}',
    "steps are text": '{"train": {"steps": "many", "epochs": 1, "log_every": 1}}',
    "nested": "[" * 100_000,
    "not text": "\x00\xff\xfe",
}
"""What a config.json may hold that is no run's."""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """One run among folders that look like runs."""
    make_run(str(tmp_path / "good"))
    for number, text in enumerate(STRANGE.values()):
        (tmp_path / f"other{number}").mkdir()
        (tmp_path / f"other{number}" / "config.json").write_bytes(text.encode("latin-1"))
    (tmp_path / "folder" / "config.json").mkdir(parents=True)
    (tmp_path / "huge").mkdir()
    (tmp_path / "huge" / "config.json").write_bytes(b" " * (MAX_CONFIG_BYTES + 1))
    return tmp_path


def test_every_folder_that_looks_like_a_run_is_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    looked = search_runs(str(runs))
    assert looked.runs == [str(runs / "good")]
    assert len(looked.faults) == len(STRANGE) + 2
    assert main(["runs", str(runs)]) == 0
    said = capsys.readouterr().out
    for number in range(len(STRANGE)):
        assert f"other{number} is not a run: " in said
    assert "huge is not a run: its config.json has more than 16,777,216 bytes" in said
    assert main(["runs", str(runs), "--json"]) == 0
    told = capsys.readouterr()
    assert [row["name"] for row in json.loads(told.out)] == ["good"]
    assert "is not a run" in told.err


def test_the_dashboard_shows_the_run_and_names_the_others(runs: Path) -> None:
    browser = TestClient(make_app(str(runs), every_s=0, cache_s=0), base_url="http://127.0.0.1")
    page = browser.get("/")
    assert page.status_code == 200
    assert page.text.count("is not a run") == len(STRANGE) + 2
    assert browser.get("/run?id=good").status_code == 200
    assert len(browser.get("/runs.json").json()["faults"]) == len(STRANGE) + 2
    assert browser.get("/run?id=other0").status_code == 404


def test_a_run_below_an_exported_model_and_one_with_dots_are_found(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(STRANGE["of timm"])
    (tmp_path / "model.safetensors").write_bytes(b"x")
    make_run(str(tmp_path / "vit.l-1e-4"))
    assert find_runs(str(tmp_path)) == [str(tmp_path / "vit.l-1e-4")]


def test_a_folder_that_may_not_be_read_is_named() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        make_run(f"{folder}/good")
        os.mkdir(f"{folder}/closed", mode=0o000)
        try:
            if os.getuid() == 0:
                os.seteuid(65534)  # root may read everything
            looked = search_runs(folder)
        finally:
            os.seteuid(os.getuid())
    assert looked.runs == [f"{folder}/good"]
    assert [str(line).split(": ")[0] for line in looked.faults] == [f"{folder}/closed cannot be searched"]


def _folder(path: Path) -> None:
    path.mkdir(parents=True)


def _junk(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(64))


def _list(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[]")


@pytest.mark.parametrize("make", [_folder, _junk, _list])
@pytest.mark.parametrize(
    "place",
    ["evaluations/step_00000050/metrics.json", "evaluations/watch.json", "evaluations/step_x/metrics.json",
     "checkpoints/step_00000070/COMMIT.json", "checkpoints/junk", "reconstructions/step_00000050.png", "LOCK.json"],
)  # fmt: skip
def test_no_file_in_a_run_keeps_its_page_from_being_shown(
    place: str, make: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(str(tmp_path / "run"))
    make(tmp_path / "run" / place)
    assert main(["runs", str(tmp_path)]) == 0
    assert "run " in capsys.readouterr().out
    browser = TestClient(make_app(str(tmp_path), every_s=0, cache_s=0), base_url="http://127.0.0.1")
    assert browser.get("/").status_code == 200
    page = browser.get("/run?id=run")
    assert page.status_code in (200, 502)
    assert "Traceback" not in page.text


def test_a_file_in_place_of_a_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("x")
    assert main(["runs", str(tmp_path / "notes.txt")]) == 2
    assert main(["dashboard", str(tmp_path / "notes.txt")]) == 2
    assert capsys.readouterr().err.count("notes.txt is a file: give a folder") == 2
    assert main(["runs", str(tmp_path)]) == 0
    assert "no runs at or below" in capsys.readouterr().out


def test_runs_are_found_at_any_depth_but_shards_and_runs_are_not_searched(tmp_path: Path) -> None:
    for name in ("a", "deep/er/b"):
        make_run(str(tmp_path / name))
    make_run(str(tmp_path / "a" / "inner"))
    (tmp_path / "shards" / "run").mkdir(parents=True)
    (tmp_path / "shards" / "manifest.json").write_text("{}")
    make_run(str(tmp_path / "shards" / "run"))
    assert [Path(url).relative_to(tmp_path).as_posix() for url in find_runs(str(tmp_path))] == [
        "a",
        "deep/er/b",
    ]
