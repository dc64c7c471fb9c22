"""Writes and reads the files of an evaluation, as a whole.

predictions.csv            the test part: key, patient, label, predicted, p_<CLASS>...
seed_predictions.csv       predictions of each seed, where there are several: seed, key, p_<CLASS>...
probe_test_predictions.csv predictions of each probe, where there are probes: probe, key, p_<CLASS>...
slice_predictions.csv      images of the test part, where units are scored: key, unit, attention, p_<CLASS>...
split.csv                  every image: key, patient, label, part
history.jsonl              one object for each seed and epoch
pictures.json              pictures that need the models: mistakes with heat maps, features, reconstructions
report.html                the page
val_predictions.csv        the val part, in the columns of predictions.csv; where there is a val part
classifier/                the fine-tuned weights of each seed, where they are kept (`classifier_file.py`)
external_predictions.csv   images of the external set, where there is one
metrics.json               everything else; written last, so without it there is no evaluation
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import Any

from retfound_dist.errors import RecordError
from retfound_dist.evaluate.classifier import classifier_file
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.results.evaluation_tables import (
    external_csv,
    predictions_csv,
    probes_csv,
    seeds_csv,
    slices_csv,
    split_csv,
    val_csv,
)
from retfound_dist.evaluate.results.page_image_files import PicturesFile
from retfound_dist.evaluate.results.prediction_files import (
    read_predictions,
    read_probe_predictions,
    read_seeds,
)
from retfound_dist.evaluate.scores.metrics import DIGITS as DIGITS
from retfound_dist.evaluate.scores.metrics import LEGACY, MACRO, Floats
from retfound_dist.evaluate.units.unit_parts import part_of_units
from retfound_dist.formats.log_writer import row_line
from retfound_dist.formats.score_files import EpochRow, EvaluationFile
from retfound_dist.io import storage
from retfound_dist.listing.split_units import Unit
from retfound_dist.records import json_reader

FILES = (
    "metrics.json",
    "predictions.csv",
    "seed_predictions.csv",
    "probe_test_predictions.csv",
    "external_predictions.csv",
    "split.csv",
    "history.jsonl",
    "pictures.json",
    "report.html",
    "val_predictions.csv",
    "slice_predictions.csv",
)
"""All files of an evaluation."""
(
    METRICS,
    PREDICTIONS,
    SEED_PREDICTIONS,
    PROBE_PREDICTIONS,
    EXTERNAL,
    SPLIT,
    HISTORY,
    PICTURES,
    REPORT,
    VAL,
    SLICES,
) = FILES
UNFINISHED = "unfinished.json"
"""Exists while an evaluation is written: it marks files without a metrics.json as files of an evaluation."""
REMEDY = "evaluate again with --force, or give another out.url"
"""How to fix damaged files of an evaluation."""
# Errors of the reader of predictions, which does not always know the URL.
_DAMAGE = (ValueError, KeyError, TypeError, csv.Error)
_TABLE_SCORES = {"legacy": LEGACY, "macro": MACRO}
"""Scores in every table of each kind."""


def unit_names(unit: str, units: Sequence[Unit]) -> dict[str, list[str]]:
    """`SplitPart.units` for metrics.json, so that a comparison draws the same units."""
    if unit == "patient" or all(kind == "image" for kind, _ in units):
        return {}
    return {"unit_names": [f"{kind} {name}" for kind, name in units]}


def write(url: str, evaluation: Evaluation, data: LabelledSet, report: str) -> None:
    """Write an evaluation to a URL; an older one there becomes invalid first."""
    # First, so that the next command may replace these files if writing stops halfway.
    storage.write_json(
        storage.join(url, UNFINISHED), {"note": "an evaluation that was not written completely"}
    )
    # For readers metrics.json means that the evaluation is complete. It is deleted first and written last, so
    # that nobody reads a mixture of two evaluations.
    storage.delete(storage.join(url, METRICS))
    storage.write_text(storage.join(url, PREDICTIONS), predictions_csv(evaluation))
    # Files that only some evaluations have. A file of an earlier evaluation would be read as part of this
    # one, so it is deleted.
    optional_files = {
        SEED_PREDICTIONS: None if evaluation.probabilities_SNC is None else seeds_csv(evaluation),
        PROBE_PREDICTIONS: probes_csv(evaluation) if evaluation.probe_probabilities else None,
        EXTERNAL: external_csv(evaluation.external) if evaluation.external else None,
        VAL: None
        if evaluation.val_probabilities_NC is None
        else val_csv(evaluation, part_of_units(data.parts["val"], data.unit)),
        SLICES: slices_csv(evaluation, data) if evaluation.slices else None,
    }
    for name, text in optional_files.items():
        if text is None:
            storage.delete(storage.join(url, name))
        else:
            storage.write_text(storage.join(url, name), text)
    storage.write_text(storage.join(url, SPLIT), split_csv(data))
    storage.write_bytes(storage.join(url, HISTORY), b"".join(map(row_line, evaluation.history)))
    storage.write_json(storage.join(url, PICTURES), evaluation.pictures)
    storage.write_text(storage.join(url, REPORT), report)
    # Before metrics.json: where that exists, the classifier beside it is the one that it describes.
    if evaluation.classifier:
        classifier = evaluation.classifier
        classifier_file.write(classifier_file.classifier_url(url), classifier.fields, classifier.seeds)
    else:
        classifier_file.delete(classifier_file.classifier_url(url))
    storage.write_json(storage.join(url, METRICS), evaluation.metrics)
    storage.delete(storage.join(url, UNFINISHED))


def read_metrics(url: str) -> dict[str, Any]:
    """metrics.json of the evaluation at a URL; RecordError where it is damaged or from another program."""
    return dict(json_reader.read(storage.join(url, METRICS), EvaluationFile, REMEDY))


def read_whole(url: str) -> Evaluation | None:
    """As `read`; also a RecordError where a score that pages show is missing."""
    evaluation = read(url)
    if evaluation is not None and (missing := _missing_score(evaluation.metrics)):
        raise json_reader.damage_error(storage.join(url, METRICS), f"{missing} is missing", REMEDY)
    return evaluation


def _missing_score(tree: Mapping[str, Any]) -> str:
    """The first score that pages show and this metrics.json lacks; empty where it is complete."""
    tables = {name: tree[name] for name in _TABLE_SCORES}
    tables |= {f"ci95.{name}": tree["ci95"].get(name, {}) for name in _TABLE_SCORES}
    for seed, row in enumerate(tree["per_seed"]):
        tables |= {f"per_seed[{seed}].{name}": row[name] for name in _TABLE_SCORES}
    if external := tree.get("external"):
        tables |= {f"external.{name}": external[name] for name in _TABLE_SCORES}
        tables |= {f"external.ci95.{name}": external["ci95"].get(name, {}) for name in _TABLE_SCORES}
    expected = ((where, score) for where in tables for score in _TABLE_SCORES[where.rpartition(".")[2]])
    missing = next(((where, score) for where, score in expected if score not in tables[where]), None)
    if missing:
        return ".".join(missing)
    for kind, probe in (tree.get("probe") or {}).items():
        if score := next((s for s in MACRO if s in probe["macro"] and s not in probe["ci95"]["macro"]), ""):
            return f"probe.{kind}.ci95.macro.{score}"
    return next((f"per_class.{name}" for name in tree["classes"] if name not in tree["per_class"]), "")


def read(url: str, metrics: dict[str, Any] | None = None) -> Evaluation | None:
    """The evaluation at a URL, or None where there is none; RecordError where its files are damaged.

    `metrics`: its metrics.json, where it has been read already.
    """
    if metrics is None and not storage.exists(storage.join(url, METRICS)):
        return None
    metrics = metrics or read_metrics(url)
    if not storage.exists(storage.join(url, PREDICTIONS)):
        raise RecordError(f"{storage.join(url, PREDICTIONS)} does not exist; {REMEDY}")
    # The history is only for curves: lines that cannot be read are reported, and the scores are still used.
    history = json_reader.read_lines(storage.join(url, HISTORY), EpochRow)
    classes, where = metrics["classes"], storage.join(url, PREDICTIONS)
    try:
        predictions = read_predictions(where, classes)
        return Evaluation(
            metrics=metrics,
            keys=predictions.keys,
            patients=predictions.patients,
            labels_N=predictions.labels_N,
            probabilities_NC=predictions.probabilities_NC,
            history=[dict(row) for row in history.rows],
            pictures=_read_pictures(url),
            probabilities_SNC=_read_seed_probabilities(url, metrics, predictions.keys),
            probe_probabilities=_read_probe_probabilities(url, predictions.keys, classes),
            history_fault=history.fault,
        )
    except _DAMAGE as error:
        raise RecordError(f"{where} is damaged ({type(error).__name__}: {error}); {REMEDY}") from error


def read_val(url: str, classes: Sequence[str], keys: Sequence[str]) -> Floats:
    """(V, C) of the val part of the evaluation at a URL; RecordError where its file is damaged or missing.

    `keys`: the images of val, in their order.
    """
    where = storage.join(url, VAL)
    if not storage.exists(where):
        raise RecordError(f"{where} does not exist; {REMEDY}")
    try:
        predictions = read_predictions(where, classes)
        if predictions.keys != tuple(keys):
            raise ValueError("it has other images than the val part")
    except _DAMAGE as error:
        raise RecordError(f"{where} is damaged ({type(error).__name__}: {error}); {REMEDY}") from error
    return predictions.probabilities_NC


def _read_seed_probabilities(url: str, metrics: dict[str, Any], keys: Sequence[str]) -> Floats | None:
    where, seeds, classes = storage.join(url, SEED_PREDICTIONS), metrics["seeds"], metrics["classes"]
    if len(seeds) < 2 or not storage.exists(where):
        return None
    return read_seeds(where, seeds, keys, classes)


def _read_probe_probabilities(url: str, keys: Sequence[str], classes: Sequence[str]) -> dict[str, Floats]:
    where = storage.join(url, PROBE_PREDICTIONS)
    return read_probe_predictions(where, keys, classes) if storage.exists(where) else {}


def _read_pictures(url: str) -> dict[str, Any]:
    where = storage.join(url, PICTURES)
    return dict(json_reader.read(where, PicturesFile, REMEDY)) if storage.exists(where) else {}
