"""Files of a task: what is written is read back, and damage is named."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from retfound_dist.errors import RecordError
from retfound_dist.evaluate.data.split_parts import read_split
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.task_results.task_files import predictions_csv, read_task, write_task
from tests.evaluate.tasks_made import FACTS, made_set, made_task


@pytest.mark.parametrize("kind", FACTS)
@pytest.mark.parametrize("seeds", [1, 2])
def test_an_evaluation_is_read_back_as_it_was_written(kind: str, seeds: int, tmp_path: Path) -> None:
    made = made_task(kind, seeds=seeds)
    write_task(str(tmp_path), made, made_set(kind), "<html>")
    again = read_task(str(tmp_path))
    assert again is not None
    assert again.metrics == made.metrics
    assert (again.keys, again.patients, again.history) == (made.keys, made.patients, made.history)
    assert np.array_equal(again.targets_NT, made.targets_NT, equal_nan=True)
    assert np.allclose(again.predictions_SNP, made.predictions_SNP, atol=1e-8)
    assert (tmp_path / "seed_predictions.csv").exists() == (seeds > 1)
    assert len(read_split(str(tmp_path / "split.csv"))) == 180


def test_the_columns_are_those_of_the_kind() -> None:
    headers = {}
    for kind in FACTS:
        made = made_task(kind)
        text = predictions_csv(made.facts, made.keys, made.patients, made.targets_NT, made.predictions_SNP)
        headers[kind] = next(csv.reader([text.splitlines()[0]]))[2:]
    assert headers == {
        "multilabel": ["label_cyst", "label_fluid", "p_cyst", "p_fluid"],
        "regression": ["target", "predicted", "spread"],
        "ordinal": ["label", "predicted", "expected", "p_0", "p_1", "p_2"],
    }


def test_new_images_have_no_truth() -> None:
    made = made_task("ordinal")
    text = predictions_csv(made.facts, made.keys, made.patients, None, made.predictions_SNP)
    assert text.splitlines()[0] == "key,patient,predicted,expected,p_0,p_1,p_2"


def test_files_that_only_classes_have_do_not_stay(tmp_path: Path) -> None:
    for name in evaluation_files.FILES:
        (tmp_path / name).write_text("old")
    write_task(str(tmp_path), made_task("regression", seeds=1), made_set("regression"), "<html>")
    assert not [path.name for path in tmp_path.iterdir() if path.read_text() == "old"]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("predictions.csv", "target", "x"),
        ("seed_predictions.csv", "000.png", "999.png"),
        ("metrics.json", '"scores"', '"x"'),
        ("metrics.json", '"regression"', '"survival"'),
    ],
)
def test_damage_is_named(name: str, old: str, new: str, tmp_path: Path) -> None:
    write_task(str(tmp_path), made_task("regression"), made_set("regression"), "<html>")
    (tmp_path / name).write_text((tmp_path / name).read_text().replace(old, new, 1))
    with pytest.raises(RecordError, match=f"{name}.*evaluate again with --force"):
        read_task(str(tmp_path))
    (tmp_path / name).unlink()
    if name != "metrics.json":
        with pytest.raises(RecordError, match=f"{name} does not exist; evaluate again with --force"):
            read_task(str(tmp_path))


def test_lines_of_the_history_that_cannot_be_read_are_reported(tmp_path: Path) -> None:
    write_task(str(tmp_path), made_task("regression"), made_set("regression"), "<html>")
    with (tmp_path / "history.jsonl").open("a") as history:
        history.write('{"seed": 0}\n')
    again = read_task(str(tmp_path))
    assert again is not None
    assert "1 of 5 lines of" in again.history_fault


def test_nothing_is_read_where_nothing_is(tmp_path: Path) -> None:
    assert read_task(str(tmp_path)) is None
