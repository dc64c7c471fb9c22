"""Writes and reads the files of an evaluation, as a whole.

predictions.csv            the test part: key, patient, label, predicted, p_<CLASS>...
seed_predictions.csv       predictions of each seed, where there are several: seed, key, p_<CLASS>...
probe_test_predictions.csv predictions of each probe, where there are probes: probe, key, p_<CLASS>...
split.csv                  every image: key, patient, label, part
history.jsonl              one object for each seed and epoch
pictures.json              pictures that need the models: mistakes with heat maps, features, reconstructions
report.html                the page
external_predictions.csv   images of the external set, where there is one
metrics.json               everything else; written last, so without it there is no evaluation
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from retfound_dist.errors import RecordError
from retfound_dist.evaluate.data.external_validation import ExternalTest
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.probe.encoder_images import FEATURES_VERSION
from retfound_dist.evaluate.results.page_image_files import PicturesFile
from retfound_dist.evaluate.results.prediction_files import (
    read_predictions,
    read_probe_predictions,
    read_seeds,
)
from retfound_dist.evaluate.scores.metrics import LEGACY, MACRO, Floats, Labels
from retfound_dist.evaluate.scores.probe_wording import OUTDATED_PROBES
from retfound_dist.formats.log_writer import row_line
from retfound_dist.formats.score_files import EpochRow, EvaluationFile
from retfound_dist.io import storage
from retfound_dist.listing.split_units import Unit
from retfound_dist.records import json_reader

METRICS, PREDICTIONS, SEED_PREDICTIONS, PROBE_PREDICTIONS, EXTERNAL, SPLIT, HISTORY, PICTURES, REPORT = (
    "metrics.json",
    "predictions.csv",
    "seed_predictions.csv",
    "probe_test_predictions.csv",
    "external_predictions.csv",
    "split.csv",
    "history.jsonl",
    "pictures.json",
    "report.html",
)
UNFINISHED = "unfinished.json"
"""Exists while an evaluation is written: it marks files without a metrics.json as files of an evaluation."""
REMEDY = "evaluate again with --force, or give another out.url"
"""How to fix damaged files of an evaluation."""
FILES = (
    METRICS,
    PREDICTIONS,
    SEED_PREDICTIONS,
    PROBE_PREDICTIONS,
    EXTERNAL,
    SPLIT,
    HISTORY,
    PICTURES,
    REPORT,
)
DIGITS = 8
"""Decimals of a probability. Scores are computed from rounded ones, so that the CSV gives the same scores."""

_TABLE_SCORES = {"legacy": LEGACY, "macro": MACRO}
"""Scores in every table of each kind."""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation, or one row of a comparison: scores, predictions of the test part, fine-tuning curves."""

    metrics: dict[str, Any]
    keys: tuple[str, ...]
    patients: tuple[str | None, ...]
    labels_N: Labels
    probabilities_NC: Floats
    history: list[dict[str, Any]]
    pictures: dict[str, Any] = field(default_factory=dict)
    """`page_images.make_pictures`; empty where the evaluation has none."""
    probabilities_SNC: Floats | None = None
    """Probabilities of each seed, where there are several; `probabilities_NC` is their mean."""
    probe_probabilities: dict[str, Floats] = field(default_factory=dict)
    """Probe -> its probabilities (N, C); empty without probes, and in evaluations of older versions."""
    external: ExternalTest | None = None
    """The test on another set. None after reading from files: its scores are in `metrics`."""
    history_fault: str = ""
    """A sentence about lines of history.jsonl that cannot be read; they are missing in the curves."""

    @property
    def remarks(self) -> list[str]:
        """What a user must know where this evaluation is used again."""
        is_outdated = "probe" in self.metrics and self.metrics.get("features_version") != FEATURES_VERSION
        return [text for text in (self.history_fault, OUTDATED_PROBES if is_outdated else "") if text]

    @property
    def classes(self) -> list[str]:
        """Alphabetical class names."""
        return list(self.metrics["classes"])

    @property
    def units(self) -> list[Unit]:
        """The bootstrap unit of each test image; empty where it is the patient or the image itself."""
        bootstrap = self.metrics["bootstrap"]
        return [(bootstrap["unit"], name) for name in bootstrap.get("unit_names", ())]

    @property
    def seed_probabilities_SNC(self) -> Floats:
        """(S, N, C): the probabilities of each seed, for a bootstrap over seeds."""
        return self.probabilities_NC[None] if self.probabilities_SNC is None else self.probabilities_SNC


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


def read(url: str) -> Evaluation | None:
    """The evaluation at a URL, or None where there is none; RecordError where its files are damaged."""
    if not storage.exists(storage.join(url, METRICS)):
        return None
    metrics = read_metrics(url)
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
    # Errors of the reader of predictions, which does not always know the URL.
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise RecordError(f"{where} is damaged ({type(error).__name__}: {error}); {REMEDY}") from error


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


def predictions_csv(evaluation: Evaluation) -> str:
    """The test part, one line for each image."""
    classes = evaluation.classes
    rows = [
        [key, patient or "", classes[label], classes[int(p_C.argmax())], *(f"{p:.{DIGITS}f}" for p in p_C)]
        for key, patient, label, p_C in zip(
            evaluation.keys,
            evaluation.patients,
            evaluation.labels_N,
            evaluation.probabilities_NC,
            strict=True,
        )
    ]
    return _csv_text(["key", "patient", "label", "predicted", *(f"p_{c}" for c in classes)], rows)


def seeds_csv(evaluation: Evaluation) -> str:
    """The test part, one line for each seed and image."""
    by_seed = zip(evaluation.metrics["seeds"], evaluation.seed_probabilities_SNC, strict=True)
    rows = [
        [str(seed), key, *(f"{p:.{DIGITS}f}" for p in p_C)]
        for seed, p_NC in by_seed
        for key, p_C in zip(evaluation.keys, p_NC, strict=True)
    ]
    return _csv_text(["seed", "key", *(f"p_{c}" for c in evaluation.classes)], rows)


def probes_csv(evaluation: Evaluation) -> str:
    """The test part, one line for each probe and image."""
    rows = [
        [probe, key, *(f"{p:.{DIGITS}f}" for p in p_C)]
        for probe, p_NC in evaluation.probe_probabilities.items()
        for key, p_C in zip(evaluation.keys, p_NC, strict=True)
    ]
    return _csv_text(["probe", "key", *(f"p_{c}" for c in evaluation.classes)], rows)


def external_csv(external_test: ExternalTest) -> str:
    """The external set, one line for each image. `label`: the class of the model it is mapped to."""
    classes = external_test.metrics["classes"]
    images = zip(
        external_test.keys,
        external_test.patients,
        external_test.labels_N,
        external_test.own_labels,
        external_test.probabilities_NM,
        strict=True,
    )
    rows = [
        [key, patient or "", classes[label], own_label, classes[int(p_M.argmax())]]
        + [f"{p:.{DIGITS}f}" for p in p_M]
        for key, patient, label, own_label, p_M in images
    ]
    columns = ["key", "patient", "label", "external_label", "predicted"]
    return _csv_text([*columns, *(f"p_{c}" for c in classes)], rows)


def split_csv(data: LabelledSet) -> str:
    """The part of each image, one line for each image."""
    rows = [
        [key, patient or "", data.classes[label], name]
        for name, part in data.parts.items()
        for key, patient, label in zip(part.keys, part.patients, part.labels, strict=True)
    ]
    return _csv_text(["key", "patient", "label", "part"], rows)


def _csv_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
