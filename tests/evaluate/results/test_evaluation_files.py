"""An evaluation's files: whole or not there, read back as they were written, damage told by file and line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retfound_dist.cli import main
from retfound_dist.config.schema import EvalData
from retfound_dist.errors import FormatError, RecordError, RetfoundError
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.results import evaluation_files
from tests.evaluate.inputs import TINY, class_folders
from tests.evaluate.made import evaluated, made_pictures, predictions

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


def again(root: Path, *options: str) -> int:
    """`retfound evaluate` once more."""
    return main(["evaluate", str(root / "evaluate.toml"), *TINY, *(options or ("--quiet",))])


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
    assert "1 of 3 lines of" in held.history_fault
    history.write_bytes(good)


def test_probes_of_an_earlier_version_are_used_again_with_a_warning(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = whole / "out" / "metrics.json"
    good = metrics.read_bytes()
    tree = json.loads(good)
    assert "probe" in tree
    assert tree.pop("features_version") == 2
    assert again(whole, "--debug") == 0
    assert "earlier version" not in str(capsys.readouterr())
    metrics.write_text(json.dumps(tree))
    assert again(whole, "--debug") == 0
    assert "its probes are of an earlier version" in str(capsys.readouterr())
    metrics.write_bytes(good)


def test_what_is_drawn_together_is_kept_for_a_later_comparison_unless_patients_or_keys_say_it() -> None:
    units = [("volume", "a"), ("image", "a"), ("patient", "p")]
    assert evaluation_files.unit_names("image", units) == {"unit_names": ["volume a", "image a", "patient p"]}
    assert evaluation_files.unit_names("patient", [("patient", "p")]) == {}
    assert (
        evaluation_files.unit_names("image", [("image", "a"), ("image", "b")])
        == evaluation_files.unit_names("image", ())
        == {}
    )


@pytest.mark.parametrize("seeds", [1, 2])
def test_an_evaluation_reads_back_as_it_was_written(seeds: int, tmp_path: Path) -> None:
    row = predictions(0, images=30, pictures=made_pictures(0, images=30))
    each = row.probabilities_NC[None] + np.arange(seeds)[:, None, None] * 1e-3
    row = dataclasses.replace(
        row,
        metrics={**row.metrics, "seeds": list(range(seeds))},
        probabilities_NC=row.probabilities_NC.round(evaluation_files.DIGITS),
        probabilities_SNC=each.round(evaluation_files.DIGITS) if seeds > 1 else None,
    )
    data = load_labelled_set(EvalData(path=str(class_folders(tmp_path / "set", each=4)), workers=0), 28)
    url = f"memory://evaluation_files/{seeds}"
    evaluation_files.write(url, row, data, "<html>")
    held = evaluation_files.read_whole(url)
    assert held is not None
    assert held.metrics == row.metrics
    assert (held.keys, held.patients, held.history) == (row.keys, row.patients, row.history)
    assert held.pictures == row.pictures
    assert (held.labels_N == row.labels_N).all()
    assert (held.probabilities_NC == row.probabilities_NC).all()
    assert (held.seed_probabilities_SNC == row.seed_probabilities_SNC).all()
    assert (held.probabilities_SNC is None) == (seeds == 1)


def test_an_evaluation_does_not_count_until_its_metrics_are_written(tmp_path: Path) -> None:
    """The disk fills up while the page is written over an older evaluation: that one no longer counts."""
    row = predictions(0, images=30)
    data = load_labelled_set(EvalData(path=str(class_folders(tmp_path / "set", each=4)), workers=0), 28)
    out = tmp_path / "out"
    evaluation_files.write(str(out), row, data, "<html>")
    assert not (out / evaluation_files.UNFINISHED).exists()
    (out / evaluation_files.REPORT).unlink()
    (out / evaluation_files.REPORT).mkdir()  # no file can be written here
    with pytest.raises(RetfoundError):
        evaluation_files.write(str(out), row, data, "<html>")
    assert evaluation_files.read(str(out)) is None
    assert (out / evaluation_files.UNFINISHED).exists(), "so that the next try knows the files as its own"


def test_seeds_of_an_earlier_evaluation_do_not_stay_beside_one_without(tmp_path: Path) -> None:
    row = predictions(0, images=30)
    data = load_labelled_set(EvalData(path=str(class_folders(tmp_path / "set", each=4)), workers=0), 28)
    both = dataclasses.replace(
        row, metrics={**row.metrics, "seeds": [0, 1]}, probabilities_SNC=np.stack([row.probabilities_NC] * 2)
    )
    evaluation_files.write(str(tmp_path), both, data, "")
    assert (tmp_path / evaluation_files.SEED_PREDICTIONS).exists()
    evaluation_files.write(str(tmp_path), row, data, "")
    assert not (tmp_path / evaluation_files.SEED_PREDICTIONS).exists()
