"""Writes and reads the files of an evaluation, as a whole.

predictions.csv   the test part: key, patient, label, predicted, p_<CLASS>...
seed_predictions.csv   the same of each seed, where there are several: seed, key, p_<CLASS>...
split.csv         every image: key, patient, label, part
history.jsonl     one object for each seed and epoch
pictures.json     what only the models could show: mistakes with heat maps, features, reconstructions
report.html       the page
external_predictions.csv   the external set's images, where one was tested
metrics.json      everything else; written last, so without it there is no evaluation
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
from retfound_dist.evaluate.results.page_image_files import PicturesFile
from retfound_dist.evaluate.results.prediction_files import read_predictions, read_seeds
from retfound_dist.evaluate.scores.metrics import LEGACY, MACRO, Floats, Labels
from retfound_dist.formats.log_writer import row_line
from retfound_dist.formats.score_files import EpochRow, EvaluationFile
from retfound_dist.io import storage
from retfound_dist.listing.split_units import Unit
from retfound_dist.records import json_reader

METRICS, PREDICTIONS, OF_SEEDS, EXTERNAL, SPLIT, HISTORY, PICTURES, REPORT = (
    "metrics.json",
    "predictions.csv",
    "seed_predictions.csv",
    "external_predictions.csv",
    "split.csv",
    "history.jsonl",
    "pictures.json",
    "report.html",
)
UNFINISHED = "unfinished.json"
"""Exists while an evaluation is being written. Beside it, files without a metrics.json are ours."""
REMEDY = "evaluate again with --force, or give another out.url"
"""What a person can do about damaged files of an evaluation."""
FILES = (METRICS, PREDICTIONS, OF_SEEDS, EXTERNAL, SPLIT, HISTORY, PICTURES, REPORT)
DIGITS = 8
"""Decimals of a probability; scores are computed from the rounded ones, so that the CSV gives the same."""

_SHOWN = {"legacy": LEGACY, "macro": MACRO}
"""Scores in every table of each kind."""


@dataclass(frozen=True)
class Evaluation:
    """One row of a comparison: scores, the test part's predictions, the fine-tuning curves."""

    metrics: dict[str, Any]
    keys: tuple[str, ...]
    patients: tuple[str | None, ...]
    labels_N: Labels
    probabilities_NC: Floats
    history: list[dict[str, Any]]
    pictures: dict[str, Any] = field(default_factory=dict)
    """`pictures.make_pictures`; empty where an evaluation was made without."""
    probabilities_SNC: Floats | None = None
    """Each seed's own probabilities, where there are several; `probabilities_NC` is their mean."""
    external: ExternalTest | None = None
    """Where another set was tested; not read back: its scores are in `metrics`."""
    left_out: str = ""
    """A sentence about lines of history.jsonl that could not be read; the curves lack them."""

    @property
    def classes(self) -> list[str]:
        """Alphabetical class names."""
        return list(self.metrics["classes"])

    @property
    def units(self) -> list[Unit]:
        """The unit that a bootstrap draws for each test image; empty: its patient, or the image alone."""
        bootstrap = self.metrics["bootstrap"]
        return [(bootstrap["unit"], name) for name in bootstrap.get("unit_names", ())]

    @property
    def drawn_from(self) -> Floats:
        """The probabilities that a bootstrap over seeds draws from, (S, N, C)."""
        return self.probabilities_NC[None] if self.probabilities_SNC is None else self.probabilities_SNC


def unit_names(unit: str, units: Sequence[Unit]) -> dict[str, list[str]]:
    """What metrics.json keeps of `Part.units`, for a comparison to draw alike."""
    if unit == "patient" or all(kind == "image" for kind, _ in units):
        return {}
    return {"unit_names": [f"{kind} {name}" for kind, name in units]}


def write(url: str, evaluation: Evaluation, data: LabelledSet, report: str) -> None:
    """Put an evaluation at a URL; an older one there stops counting first."""
    # First: if writing is cut off, the next run knows these files as its own and may replace them.
    storage.write_json(storage.join(url, UNFINISHED), {"note": "an evaluation that was not written whole"})
    # Readers take metrics.json as the sign of a whole evaluation. It is deleted first and written last, so
    # that nobody reads a mixture of two evaluations.
    storage.delete(storage.join(url, METRICS))
    storage.write_text(storage.join(url, PREDICTIONS), predictions_csv(evaluation))
    # Files that only some evaluations have: one that is left from an earlier evaluation would be read as
    # part of this one.
    some = {
        OF_SEEDS: None if evaluation.probabilities_SNC is None else seeds_csv(evaluation),
        EXTERNAL: external_csv(evaluation.external) if evaluation.external else None,
    }
    for name, text in some.items():
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
    """metrics.json of the evaluation at a URL; RecordError where it is damaged or of another program."""
    return dict(json_reader.read(storage.join(url, METRICS), EvaluationFile, REMEDY))


def read_whole(url: str) -> Evaluation | None:
    """`read` for a page of several: RecordError too where a score that it shows is missing."""
    evaluation = read(url)
    if evaluation is not None and (lacking := _lacking(evaluation.metrics)):
        raise json_reader.damaged(storage.join(url, METRICS), f"{lacking} is missing", REMEDY)
    return evaluation


def _lacking(tree: Mapping[str, Any]) -> str:
    """The first score that pages show and this metrics.json does not hold; empty where it is whole."""
    tables = {name: tree[name] for name in _SHOWN}
    tables |= {f"ci95.{name}": tree["ci95"].get(name, {}) for name in _SHOWN}
    for seed, row in enumerate(tree["per_seed"]):
        tables |= {f"per_seed[{seed}].{name}": row[name] for name in _SHOWN}
    if external := tree.get("external"):
        tables |= {f"external.{name}": external[name] for name in _SHOWN}
        tables |= {f"external.ci95.{name}": external["ci95"].get(name, {}) for name in _SHOWN}
    wanted = ((where, score) for where in tables for score in _SHOWN[where.rpartition(".")[2]])
    missing = next(((where, score) for where, score in wanted if score not in tables[where]), None)
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
        raise RecordError(f"{storage.join(url, PREDICTIONS)} is not there; {REMEDY}")
    # The history only feeds curves. Lines that cannot be read are counted, and the scores are still used.
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
            pictures=_pictures(url),
            probabilities_SNC=_of_seeds(url, metrics, predictions.keys),
            left_out=history.fault,
        )
    # The reader of predictions raises these for damage and does not always know the file's URL.
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise RecordError(f"{where} is damaged ({type(error).__name__}: {error}); {REMEDY}") from error


def _of_seeds(url: str, metrics: dict[str, Any], keys: Sequence[str]) -> Floats | None:
    where, seeds, classes = storage.join(url, OF_SEEDS), metrics["seeds"], metrics["classes"]
    if len(seeds) < 2 or not storage.exists(where):
        return None
    return read_seeds(where, seeds, keys, classes)


def _pictures(url: str) -> dict[str, Any]:
    where = storage.join(url, PICTURES)
    return dict(json_reader.read(where, PicturesFile, REMEDY)) if storage.exists(where) else {}


def predictions_csv(evaluation: Evaluation) -> str:
    """The test part, one line an image."""
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
    return _csv(["key", "patient", "label", "predicted", *(f"p_{c}" for c in classes)], rows)


def seeds_csv(evaluation: Evaluation) -> str:
    """The test part by each seed, one line a seed and image."""
    by_seed = zip(evaluation.metrics["seeds"], evaluation.drawn_from, strict=True)
    rows = [
        [str(seed), key, *(f"{p:.{DIGITS}f}" for p in p_C)]
        for seed, p_NC in by_seed
        for key, p_C in zip(evaluation.keys, p_NC, strict=True)
    ]
    return _csv(["seed", "key", *(f"p_{c}" for c in evaluation.classes)], rows)


def external_csv(tested: ExternalTest) -> str:
    """The external set, one line an image: `label` in the model's words, `external_label` in the set's."""
    classes = tested.metrics["classes"]
    images = zip(
        tested.keys, tested.patients, tested.labels_N, tested.own_labels, tested.probabilities_NM, strict=True
    )
    rows = [
        [key, patient or "", classes[label], own_label, classes[int(p_M.argmax())]]
        + [f"{p:.{DIGITS}f}" for p in p_M]
        for key, patient, label, own_label, p_M in images
    ]
    columns = ["key", "patient", "label", "external_label", "predicted"]
    return _csv([*columns, *(f"p_{c}" for c in classes)], rows)


def split_csv(data: LabelledSet) -> str:
    """Which image fell into which part."""
    rows = [
        [key, patient or "", data.classes[label], name]
        for name, part in data.parts.items()
        for key, patient, label in zip(part.keys, part.patients, part.labels, strict=True)
    ]
    return _csv(["key", "patient", "label", "part"], rows)


def _csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
