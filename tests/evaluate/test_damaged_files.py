"""Damaged files of evaluations, probes and comparisons: told by file and line, and never built upon."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.errors import FormatError, RecordError
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.results.existing_results import check_rows
from retfound_dist.evaluate.watching import probe_results
from retfound_dist.formats import run_folder
from retfound_dist.formats.checkpoint_folder import evaluation_url
from tests.evaluate.commands.test_watch import watch
from tests.evaluate.inputs import TINY, checkpoint, class_folders
from tests.evaluate.made import evaluated

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a list": lambda good: b"[]",
    "null": lambda good: b"null",
    "empty": lambda good: b"",
    "an empty object": lambda good: b"{}",
    "cut": lambda good: good[: len(good) // 2],
    "deep": lambda good: b"[" * 100_000,
    "not UTF-8": lambda good: good.replace(b'"path": "', b'"path": "\xff'),
    "classes gone": lambda good: good.replace(b'"classes"', b'"klasses"'),
    "a score is a text": lambda good: good.replace(b'"auroc": ', b'"auroc": "x", "auroc2": ', 1),
    "a score is NaN": lambda good: good.replace(b'"auroc": ', b'"auroc": NaN, "auroc2": ', 1),
    "a class is a number": lambda good: good.replace(b'"CSR",', b"7,"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a set, and `out` with its evaluation."""
    root = tmp_path_factory.mktemp("whole")
    class_folders(root / "set")
    evaluated(root, "none")
    return root


def again(root: Path) -> int:
    """`retfound evaluate` once more."""
    return main(["evaluate", str(root / "evaluate.toml"), *TINY, "--quiet"])


def test_an_evaluation_whose_metrics_are_damaged_is_refused_by_line_and_left_alone(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = whole / "out" / "metrics.json"
    good = metrics.read_bytes()
    assert again(whole) == 0
    for kind, spoil in DAMAGE.items():
        metrics.write_bytes(spoil(good))
        assert metrics.read_bytes() != good, kind
        capsys.readouterr()
        assert again(whole) == 2, kind
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"retfound: {metrics} is damaged: "), kind
        assert "line" in line or kind == "empty", (kind, line)
        assert line.endswith("evaluate again with --force, or give another out.url")
        assert metrics.read_bytes() == spoil(good)
        with pytest.raises(RecordError, match="is damaged"):
            evaluation_files.read(str(whole / "out"))
    later = json.dumps({"format": 2, **json.loads(good)}).encode()
    metrics.write_bytes(later)
    assert again(whole) == 2
    assert "has format 2, this version reads format 1" in capsys.readouterr().err
    with pytest.raises(FormatError):
        evaluation_files.read(str(whole / "out"))
    metrics.write_bytes(json.dumps({"of_the_future": [1], **json.loads(good)}).encode())
    assert again(whole) == 0
    metrics.write_bytes(good)


def test_a_curve_that_lost_lines_is_said_and_the_scores_are_read(whole: Path) -> None:
    history = whole / "out" / "history.jsonl"
    good = history.read_bytes()
    history.write_bytes(b"{broken\n" + good)
    held = evaluation_files.read(str(whole / "out"))
    assert held is not None
    assert len(held.history) == len(good.splitlines())
    assert "1 of 3 lines of" in held.left_out
    history.write_bytes(good)


def test_predictions_that_are_damaged_are_made_again_and_that_is_said(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = whole / "out" / "predictions.csv"
    good = predictions.read_bytes()
    predictions.write_bytes(good.replace(b"0.", b"x.", 3))
    assert main(["evaluate", str(whole / "evaluate.toml"), *TINY]) == 0
    said = capsys.readouterr().out
    assert "it is made again: " in said
    assert "predictions.csv is damaged (ValueError: " in said
    assert predictions.read_bytes() == good


@pytest.mark.parametrize("text", ["[]", "null", "", "{}", '{"config": {"weights": ["a"]}}', "[" * 9999])
def test_a_comparison_whose_file_is_damaged_is_refused(text: str, tmp_path: Path) -> None:
    where = tmp_path / "compare.json"
    where.write_text(text)
    with pytest.raises(
        RecordError, match=r"compare\.json is damaged: .*; give another out\.url, or compare again"
    ):
        check_rows(str(where), {"a": "none"}, force=False)
    check_rows(str(where), {"a": "none"}, force=True)


def test_a_watch_makes_damaged_probes_again_and_goes_on_past_damaged_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders(tmp_path / "set")
    run = tmp_path / "run"
    checkpoint(run, 10)
    assert watch(tmp_path, "finetune_every=0") == 0
    where = Path(evaluation_url(str(run), 10))
    good = json.loads((where / probe_results.PROBE).read_text())
    (where / probe_results.PROBE).write_text("[]")
    (where / evaluation_files.METRICS).write_text('{"macro": 5')
    (run / run_folder.ALARMS).write_text('{broken\n[]\n{"message": 7}\n')
    capsys.readouterr()
    more = ["finetune_every=0", "poll_seconds=0.01", "stop_after_minutes=0.0005"]
    assert main(["watch", str(tmp_path / "watch.toml"), *TINY, *more]) == 0
    said = capsys.readouterr().out
    assert json.loads((where / probe_results.PROBE).read_text())["linear"] == good["linear"]
    assert (where / evaluation_files.METRICS).read_text() == '{"macro": 5'
    assert "probe.json is damaged: line 1: it is a list" in said
    assert "metrics.json is damaged: line 1: it is cut off" in said
    assert "3 of 3 lines of" in said
