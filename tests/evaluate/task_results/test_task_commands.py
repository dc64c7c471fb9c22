"""Evaluating and comparing tasks: files, reuse, refusals, and a classifier that predicts the same again."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from retfound_dist.config.schema import CompareConfig, CompareOut, EvalData, Task
from retfound_dist.errors import ConfigError, RecordError
from retfound_dist.evaluate.classifier.best_row import best_row
from retfound_dist.evaluate.classifier.classifier import (
    load_classifier,
    mean_probabilities,
    seed_probabilities,
)
from retfound_dist.evaluate.commands import compare
from retfound_dist.evaluate.commands.compare import compare_command
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.task_results.task_commands import task_row_config
from retfound_dist.evaluate.task_results.task_files import prediction_columns, read_task
from tests.evaluate.inputs import TINY
from tests.evaluate.made import evaluated
from tests.evaluate.tasks_made import FACTS, SETTINGS, bright_list, evaluated_task, made_task


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", FACTS)
def test_an_evaluation_can_be_read_reused_and_predicted_again(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bright_list(tmp_path / "set")
    out = evaluated_task(tmp_path, kind)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["task"]["kind"] == kind
    evaluation = read_task(str(out))
    assert evaluation is not None
    rows = table(out / "predictions.csv")
    assert [row["key"] for row in rows] == list(evaluation.keys)
    assert len(rows) == metrics["split"]["test"] > 5
    # The kept network predicts the test part again, to the last digit.
    data = load_labelled_set(
        EvalData(path=str(path)), 28,
        task=Task(kind=kind, targets=FACTS[kind].targets),  # type: ignore[arg-type]
    )  # fmt: skip
    classifier = load_classifier(str(out))
    again = seed_probabilities(classifier, data.parts["test"].images)
    predicted = mean_probabilities(classifier, again, calibrated=True)
    columns = prediction_columns(evaluation.facts)
    stored = np.array([[float(row[name]) for name in columns] for row in rows])
    assert np.array_equal(predicted, stored)
    # The same request does nothing; another task there is refused.
    before = (out / "metrics.json").stat().st_mtime_ns
    (out / "report.html").unlink()
    evaluated_task(tmp_path, kind)
    assert (out / "metrics.json").stat().st_mtime_ns == before
    assert (out / "report.html").exists()
    with (out / "history.jsonl").open("a") as history:
        history.write("{}\n")
    evaluated_task(tmp_path, kind, quiet=False)
    assert "1 of 3 lines of" in capsys.readouterr().out
    # Damage of another file does not change which evaluation is there.
    (out / "predictions.csv").write_text("damaged")
    with pytest.raises(ConfigError, match=r"holds another evaluation \(bootstrap is 50 there and 60 here\)"):
        evaluated_task(tmp_path, kind, "bootstrap=60")
    assert (out / "predictions.csv").read_text() == "damaged"
    assert (out / "metrics.json").stat().st_mtime_ns == before


def test_an_evaluation_of_another_kind_is_refused_and_not_called_damaged(tmp_path: Path) -> None:
    bright_list(tmp_path / "set")
    out = evaluated_task(tmp_path, "regression", "finetune.epochs=1", "probe.enabled=false")
    with pytest.raises(ConfigError, match=r"task\.kind is 'regression' there and 'ordinal' here"):
        evaluated_task(tmp_path, "ordinal", f"out.url={out}", "finetune.epochs=1", "probe.enabled=false")
    with pytest.raises(ConfigError, match=r"task\.kind is 'regression' there and 'multiclass' here"):
        evaluated(tmp_path, "none", f"out.url={out}", f"data.path={labels(tmp_path)}")


def labels(root: Path) -> Path:
    path = root / "set" / "labels.csv"
    rows = table(root / "set" / "list.csv")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label"])
        writer.writerows([row["file"], "ABC"[int(row["stage"])]] for row in rows)
    return path


def test_a_comparison_writes_a_table_and_keeps_the_classifier_that_is_best_on_val(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "show_rows", lambda starts, show: "rows differ in tokens")
    path = bright_list(tmp_path / "set")
    config = tmp_path / "compare.toml"
    config.write_text(
        f'[weights]\nscratch = "none"\nagain = "none"\n[task]\n{SETTINGS["regression"]}\n'
        f'[data]\npath = "{path}"\n[out]\nurl = "{tmp_path / "out"}"\n'
    )
    overrides = [*TINY, "finetune.epochs=1", "probe.enabled=false"]
    assert compare_command(str(config), overrides, quiet=True) == 0
    tree = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert tree["task"]["targets"] == ["age"]
    assert "Rows differ in tokens." in tree["sentences"]
    assert "Rows differ in tokens." in (tmp_path / "out" / "report.html").read_text()
    assert {line["metric"] for line in tree["pairs"]} == {"mae", "concordance"}
    # Both rows are the same network.
    assert [line["difference"] for line in tree["pairs"]] == [0, 0]
    assert "mean absolute error" in (tmp_path / "out" / "table.md").read_text()
    kept = [name for name in ("scratch", "again") if (tmp_path / "out" / name / "classifier").exists()]
    assert kept == ["scratch"]
    metrics = tmp_path / "out" / "scratch" / "metrics.json"
    old = json.loads(metrics.read_text())
    old["checkpoint"]["pretrained_on"] = {"how": "unknown (no digests)", "test": None, "of": {"test": 10}}
    metrics.write_text(json.dumps(old))
    before = metrics.stat().st_mtime_ns
    assert compare_command(str(config), overrides) == 0
    assert metrics.stat().st_mtime_ns == before
    assert (
        "scratch: whether these weights were pretrained on images of this set is unknown"
        in capsys.readouterr().out
    )


def test_force_makes_only_rows_again_that_are_damaged_or_have_other_settings(tmp_path: Path) -> None:
    path, config = bright_list(tmp_path / "set"), tmp_path / "compare.toml"
    config.write_text(
        f'[weights]\na = "none"\nb = "none"\n[task]\n{SETTINGS["ordinal"]}\n'
        f'[data]\npath = "{path}"\n[out]\nurl = "{tmp_path / "out"}"\n'
    )
    overrides = [*TINY, "finetune.epochs=1", "probe.enabled=false"]
    assert compare_command(str(config), overrides, quiet=True) == 0
    files = [tmp_path / "out" / name / "metrics.json" for name in "ab"]
    times = [file.stat().st_mtime_ns for file in files]
    files[1].write_text("{")
    with pytest.raises(RecordError):
        compare_command(str(config), overrides, quiet=True)
    assert compare_command(str(config), overrides, quiet=True, force=True) == 0
    assert json.loads(files[1].read_text())
    assert files[0].stat().st_mtime_ns == times[0]
    assert compare_command(str(config), [*overrides, "bootstrap=60"], quiet=True, force=True) == 0
    assert files[0].stat().st_mtime_ns > times[0]


def test_the_best_row_is_chosen_on_val_where_a_smaller_error_is_better() -> None:
    rows = {"a": made_task("regression"), "b": made_task("regression")}
    for line in rows["b"].history:
        line["val_score"] = -0.1
    assert best_row(["a", "b"], rows) == "b"
    rows["b"].history.clear()
    assert best_row(["a", "b"], rows) == "a"


def test_a_row_has_the_task_of_its_comparison() -> None:
    task = Task(kind="ordinal", targets=("stage",), grades=("0", "1"))
    config = CompareConfig(
        weights={"a": "none"},
        data=EvalData(path="set"),
        out=CompareOut(url="out"),
        task=task,
    )
    settings = task_row_config(config, "a")
    assert settings.task == task
    assert settings.out.url == "out/a"
