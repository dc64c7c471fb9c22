"""What stands where an evaluation or a comparison shall be written: refused, taken as it is, or made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from retfound_dist.cli import main
from retfound_dist.config.schema import EvalData, EvalOut, EvaluateConfig
from retfound_dist.errors import ConfigError, RecordError
from retfound_dist.evaluate.results import evaluation_files, existing_results
from retfound_dist.evaluate.results.existing_results import (
    check_out_url,
    check_rows,
    check_sets,
    read_matching,
    read_matching_evaluation,
)
from retfound_dist.formats import url_kinds
from tests.evaluate.inputs import TINY, checkpoint, class_folders
from tests.evaluate.made import evaluated


def test_predictions_that_are_damaged_are_made_again_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders(tmp_path / "set")
    predictions = evaluated(tmp_path, "none") / "predictions.csv"
    good = predictions.read_bytes()
    predictions.write_bytes(good.replace(b"0.", b"x.", 3))
    assert main(["evaluate", str(tmp_path / "evaluate.toml"), *TINY]) == 0
    said = capsys.readouterr().out
    assert "the evaluation is made again: " in said
    assert "predictions.csv is damaged (ValueError: " in said
    assert predictions.read_bytes() == good


def asked(url: Path) -> EvaluateConfig:
    return EvaluateConfig(checkpoint="none", data=EvalData(path="set"), out=EvalOut(url=str(url)))


def test_metrics_are_read_once_and_other_files_only_of_the_same_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    reads: list[Any] = []

    def read_metrics(url: str) -> dict[str, Any]:
        reads.append(url)
        return {"read": len(reads)}

    def ask() -> Any:
        return read_matching(
            *(Mock(), Mock(), asked(tmp_path), False, print), read_metrics, lambda url, tree: tree
        )

    monkeypatch.setattr(existing_results, "find_differences", lambda tree, *_: [])
    assert ask() == {"read": 1}
    monkeypatch.setattr(existing_results, "find_differences", lambda tree, *_: ["seeds differ"])
    with pytest.raises(ConfigError, match="holds another evaluation \\(seeds differ\\)"):
        ask()


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ('{"task": {"kind": "ordinal"}}', ConfigError, "task.kind is 'ordinal' there and 'multiclass' here"),
        ('{"classes": 3}', RecordError, r"metrics\.json is damaged"),
    ],
)
def test_another_kind_of_task_is_not_called_damaged(
    text: str, error: type[Exception], said: str, tmp_path: Path
) -> None:
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(error, match=said):
        read_matching_evaluation(Mock(), Mock(), asked(tmp_path), False, print)


@pytest.mark.parametrize("text", ["[]", "null", "", "{}", '{"config": {"weights": ["a"]}}', "[" * 9999])
def test_a_comparison_whose_file_is_damaged_is_refused(text: str, tmp_path: Path) -> None:
    where = tmp_path / "compare.json"
    where.write_text(text)
    with pytest.raises(
        RecordError, match=r"compare\.json is damaged: .*; give another out\.url, or compare again"
    ):
        check_rows(str(where), {"a": "none"}, force=False)
    check_rows(str(where), {"a": "none"}, force=True)


def test_rows_that_a_new_comparison_would_not_show_are_named(tmp_path: Path) -> None:
    where = tmp_path / "compare.json"
    check_rows(str(where), {"a": "none"}, force=False)
    where.write_text('{"config": {"weights": {"a": "none", "b": "x.pth"}}}')
    check_rows(str(where), {"a": "none", "b": "y.pth", "c": "none"}, force=False)
    with pytest.raises(ConfigError, match=r"weights\.b is missing in the new comparison"):
        check_rows(str(where), {"a": "none"}, force=False)


def test_sets_and_rows_that_a_new_suite_would_not_show_are_named(tmp_path: Path) -> None:
    where = tmp_path / "suite.json"
    check_sets(str(where), {"a": "none"}, {"x": {}}, force=False)
    where.write_text(
        '{"config": {"weights": {"a": "none"}, "sets": {"x": {"path": "p"}, "y": {"path": "q"}}}}'
    )
    check_sets(str(where), {"a": "none", "b": "w.pth"}, {"x": {}, "y": {}, "z": {}}, force=False)
    with pytest.raises(ConfigError, match=r"weights\.a is missing in the new suite; sets\.y is missing"):
        check_sets(str(where), {"b": "none"}, {"x": {}}, force=False)
    check_sets(str(where), {"b": "none"}, {"x": {}}, force=True)
    where.write_text("[]")
    with pytest.raises(
        RecordError, match=r"suite\.json is damaged: .*; give another out\.url, or run the suite"
    ):
        check_sets(str(where), {"a": "none"}, {"x": {}}, force=False)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_belongs_to_something_else_is_refused_even_by_force(
    tmp_path: Path, force: bool
) -> None:
    url = checkpoint(tmp_path / "run", 3)
    (tmp_path / "compared").mkdir()
    (tmp_path / "compared" / "compare.json").write_text("{}")
    (tmp_path / "file").write_text("x")
    for place, kind in (
        (tmp_path / "run", "a run"),
        (url, "a checkpoint"),
        (tmp_path / "compared", "a comparison"),
    ):
        with pytest.raises(ConfigError, match=f"is {kind}: set out.url to another folder for an evaluation"):
            check_out_url(str(place), force)
    with pytest.raises(ConfigError, match="it must be a folder"):
        check_out_url(str(tmp_path / "file"), force)
    check_out_url(str(tmp_path / "compared"), force, url_kinds.COMPARISON)
    check_out_url(str(tmp_path / "nothing"), force)


def test_another_program_s_file_of_our_name_is_not_replaced_unless_an_evaluation_was_cut_off(
    tmp_path: Path,
) -> None:
    (tmp_path / "predictions.csv").write_text("mine")
    with pytest.raises(
        ConfigError, match=r"predictions\.csv exists and was not written by `retfound evaluate`"
    ):
        check_out_url(str(tmp_path), force=False)
    check_out_url(str(tmp_path), force=True)
    (tmp_path / evaluation_files.UNFINISHED).write_text("{}")
    check_out_url(str(tmp_path), force=False)
