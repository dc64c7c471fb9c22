"""Writes and reads the files of a task's evaluation.

predictions.csv       the test part: key, patient, then label_<T> and p_<T>; or target, predicted (and the
                      spread over seeds); or label, predicted, expected and p_<GRADE>
val_predictions.csv   the val part, in the same columns
seed_predictions.csv  each seed: seed, key, then p_<T>, predicted or p_<GRADE>
split.csv, history.jsonl, report.html, classifier/    as of every evaluation
metrics.json          everything else; written last, so without it there is no evaluation
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from retfound_dist.errors import RecordError
from retfound_dist.evaluate.classifier import classifier_file
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.results.evaluation_files import REMEDY
from retfound_dist.evaluate.scores.metrics import DIGITS, Floats
from retfound_dist.evaluate.task_results.task_evaluation import TaskEvaluation
from retfound_dist.evaluate.tasks.task_facts import MULTILABEL, REGRESSION, TaskFacts, facts_from_json
from retfound_dist.evaluate.tasks.task_objective import targets_of
from retfound_dist.evaluate.tasks.task_outputs import expected_grades, mean_predictions, predicted_grades
from retfound_dist.formats.log_writer import row_line
from retfound_dist.formats.score_files import EpochRow, TaskFile
from retfound_dist.io import storage
from retfound_dist.records import json_reader


def write_task(url: str, evaluation: TaskEvaluation, data: LabelledSet, report: str) -> None:
    """Write an evaluation to a URL; an older one there becomes invalid first."""
    note = {"note": "an evaluation that was not written completely"}
    storage.write_json(storage.join(url, evaluation_files.UNFINISHED), note)
    # Deleted first and written last, so that nobody reads a mixture of two evaluations.
    for name in (evaluation_files.METRICS, *_FILES_OF_CLASSES):
        storage.delete(storage.join(url, name))
    facts, val = evaluation.facts, data.parts["val"]
    texts: dict[str, str | None] = {
        evaluation_files.PREDICTIONS: predictions_csv(
            facts, evaluation.keys, evaluation.patients, evaluation.targets_NT, evaluation.predictions_SNP
        ),
        evaluation_files.SEED_PREDICTIONS: (
            seeds_csv(evaluation) if len(evaluation.predictions_SNP) > 1 else None
        ),
        evaluation_files.VAL: (
            None
            if evaluation.val_predictions_NP is None
            else predictions_csv(
                facts, val.keys, val.patients, targets_of(val), evaluation.val_predictions_NP[None]
            )
        ),
        evaluation_files.SPLIT: split_csv(facts, data),
        evaluation_files.REPORT: report,
    }
    for name, text in texts.items():
        where = storage.join(url, name)
        storage.delete(where) if text is None else storage.write_text(where, text)
    storage.write_bytes(
        storage.join(url, evaluation_files.HISTORY), b"".join(map(row_line, evaluation.history))
    )
    if kept := evaluation.classifier:
        classifier_file.write(classifier_file.classifier_url(url), kept.fields, kept.seeds)
    else:
        classifier_file.delete(classifier_file.classifier_url(url))
    storage.write_json(storage.join(url, evaluation_files.METRICS), evaluation.metrics)
    storage.delete(storage.join(url, evaluation_files.UNFINISHED))


_OWN_FILES = {
    evaluation_files.METRICS,
    evaluation_files.PREDICTIONS,
    evaluation_files.SEED_PREDICTIONS,
    evaluation_files.VAL,
    evaluation_files.SPLIT,
    evaluation_files.HISTORY,
    evaluation_files.REPORT,
}
_FILES_OF_CLASSES = tuple(name for name in evaluation_files.FILES if name not in _OWN_FILES)
"""Files that only an evaluation of classes has. They would be read as part of this one."""


def read_task_metrics(url: str) -> dict[str, Any]:
    """metrics.json of the evaluation at a URL; RecordError where it is damaged or from another program."""
    where = storage.join(url, evaluation_files.METRICS)
    metrics: dict[str, Any] = dict(json_reader.read(where, TaskFile, REMEDY))
    try:
        facts_from_json(metrics["task"])
    except (ValueError, KeyError, TypeError) as error:
        raise json_reader.damage_error(where, f"its task: {type(error).__name__}: {error}", REMEDY) from error
    return metrics


def read_task(url: str, metrics: dict[str, Any] | None = None) -> TaskEvaluation | None:
    """The evaluation at a URL, or None where there is none; RecordError where its files are damaged.

    `metrics`: its metrics.json, where it has been read already.
    """
    if metrics is None and not storage.exists(storage.join(url, evaluation_files.METRICS)):
        return None
    metrics = metrics or read_task_metrics(url)
    facts = facts_from_json(metrics["task"])
    # The history is only for curves: lines that cannot be read are reported, and the scores are still used.
    history = json_reader.read_lines(storage.join(url, evaluation_files.HISTORY), EpochRow)
    where = storage.join(url, evaluation_files.PREDICTIONS)
    try:
        keys, patients, targets_NT, predictions_NP = _read_predictions(where, facts)
        predictions_SNP = predictions_NP[None]
        if len(metrics["seeds"]) > 1:
            where = storage.join(url, evaluation_files.SEED_PREDICTIONS)
            predictions_SNP = _read_seeds(where, facts, metrics["seeds"], keys)
    # Whatever a damaged table raises: missing columns, text in place of numbers, other rows.
    except (ValueError, KeyError, TypeError, IndexError, csv.Error) as error:
        raise RecordError(f"{where} is damaged ({type(error).__name__}: {error}); {REMEDY}") from error
    return TaskEvaluation(
        metrics=metrics,
        keys=keys,
        patients=patients,
        targets_NT=targets_NT,
        predictions_SNP=predictions_SNP,
        history=[dict(row) for row in history.rows],
        history_fault=history.fault,
    )


def prediction_columns(facts: TaskFacts) -> list[str]:
    """The columns of the predictions that the network makes, (P,)."""
    return ["predicted"] if facts.kind == REGRESSION else [f"p_{name}" for name in facts.predicted_names]


def predictions_csv(
    facts: TaskFacts,
    keys: Sequence[str],
    patients: Sequence[str | None],
    targets_NT: Floats | None,
    predictions_SNP: Floats,
) -> str:
    """One line for each image. Without `targets_NT` the columns of the truth are left out."""
    columns: dict[str, Sequence[str]] = {"key": keys, "patient": [patient or "" for patient in patients]}
    predictions_NP = mean_predictions(predictions_SNP)
    if targets_NT is not None:
        columns |= _truth_columns(facts, targets_NT)
    if facts.kind not in (MULTILABEL, REGRESSION):
        columns["predicted"] = [facts.grades[k] for k in predicted_grades(predictions_NP)]
        columns["expected"] = _numbers(expected_grades(predictions_NP))
    for name, values_N in zip(prediction_columns(facts), predictions_NP.T, strict=True):
        columns[name] = _numbers(values_N)
    if facts.kind == REGRESSION and len(predictions_SNP) > 1:
        columns["spread"] = _numbers(predictions_SNP[:, :, 0].std(0, ddof=1))
    return _csv_text(columns)


def _truth_columns(facts: TaskFacts, targets_NT: Floats) -> dict[str, Sequence[str]]:
    if facts.kind == MULTILABEL:
        return {
            f"label_{name}": ["" if np.isnan(value) else f"{value:.0f}" for value in targets_NT[:, t]]
            for t, name in enumerate(facts.targets)
        }
    if facts.kind == REGRESSION:
        return {"target": [repr(float(value)) for value in targets_NT[:, 0]]}
    return {"label": [facts.grades[int(k)] for k in targets_NT[:, 0]]}


def seeds_csv(evaluation: TaskEvaluation) -> str:
    """The test part, one line for each seed and image."""
    seeds, count = evaluation.metrics["seeds"], len(evaluation.keys)
    flat = evaluation.predictions_SNP.reshape(len(seeds) * count, -1)
    columns: dict[str, Sequence[str]] = {
        "seed": [str(seed) for seed in seeds for _ in range(count)],
        "key": list(evaluation.keys) * len(seeds),
    }
    for name, values_N in zip(prediction_columns(evaluation.facts), flat.T, strict=True):
        columns[name] = _numbers(values_N)
    return _csv_text(columns)


def split_csv(facts: TaskFacts, data: LabelledSet) -> str:
    """The part of each image, one line for each image; it can be given as data.split_file."""
    columns: dict[str, list[str]] = {"key": [], "patient": [], "part": []}
    for name, part in data.parts.items():
        columns["key"] += part.keys
        columns["patient"] += [patient or "" for patient in part.patients]
        columns["part"] += [name] * len(part)
    truth = [_truth_columns(facts, targets_of(part)) for part in data.parts.values()]
    more = {name: [cell for rows in truth for cell in rows[name]] for name in truth[0]}
    return _csv_text({**columns, **more})


def _read_predictions(
    where: str, facts: TaskFacts
) -> tuple[tuple[str, ...], tuple[str | None, ...], Floats, Floats]:
    """Keys, patients, targets and mean predictions of predictions.csv."""
    rows = _read_csv(where)
    if facts.kind == MULTILABEL:
        truth = [[float(row[f"label_{name}"] or "nan") for name in facts.targets] for row in rows]
    elif facts.kind == REGRESSION:
        truth = [[float(row["target"])] for row in rows]
    else:
        truth = [[float(facts.grades.index(row["label"]))] for row in rows]
    predicted = [[float(row[name]) for name in prediction_columns(facts)] for row in rows]
    keys, patients = tuple(row["key"] for row in rows), tuple(row["patient"] or None for row in rows)
    return keys, patients, np.array(truth), np.array(predicted)


def _read_seeds(where: str, facts: TaskFacts, seeds: Sequence[int], keys: Sequence[str]) -> Floats:
    rows = _read_csv(where)
    if [(row["seed"], row["key"]) for row in rows] != [(str(seed), key) for seed in seeds for key in keys]:
        raise ValueError("it has other images or seeds than predictions.csv in its folder")
    values = [[float(row[name]) for name in prediction_columns(facts)] for row in rows]
    return np.array(values).reshape(len(seeds), len(keys), -1)


def _read_csv(where: str) -> list[dict[str, Any]]:
    if not storage.exists(where):
        raise RecordError(f"{where} does not exist; {REMEDY}")
    return list(csv.DictReader(io.StringIO(storage.read_bytes(where).decode(), newline="")))


def _numbers(values_N: Floats) -> list[str]:
    return [f"{value:.{DIGITS}f}" for value in values_N]


def _csv_text(columns: dict[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()
