"""Writes and reads the probe of a checkpoint, cross-validated on train and val, as a whole.

features.npz            the frozen features
probe_predictions.csv   every image of train and val: key, patient, label, <method>_p_<CLASS>...
probe.json              scores and intervals; written last, so without it there is no probe
"""

from __future__ import annotations

import csv
import io
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.config.loading import to_dict
from retfound_dist.config.schema import Probe
from retfound_dist.errors import DataError, FormatError, RecordError
from retfound_dist.evaluate.data import pretraining_overlap
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import StartingWeights
from retfound_dist.evaluate.probe import patient_folds, probing
from retfound_dist.evaluate.probe.attentive_probe import limit_note, open_tokens
from retfound_dist.evaluate.probe.encoder_images import FEATURES_VERSION, EncoderImages
from retfound_dist.evaluate.probe.frozen_features import cached_features
from retfound_dist.evaluate.results.evaluation_files import DIGITS
from retfound_dist.evaluate.scores import bootstrap, probe_wording
from retfound_dist.evaluate.scores.metrics import Floats, Labels
from retfound_dist.evaluate.units.slice_pooling import pool_parts
from retfound_dist.evaluate.units.unit_parts import parts_of_units
from retfound_dist.formats.score_files import ProbeFile
from retfound_dist.io import storage
from retfound_dist.records import json_reader
from retfound_dist.runtime.progress import ProgressDisplay

PROBE, PREDICTIONS = "probe.json", "probe_predictions.csv"
REMEDY = "the probe is made again"
PARTS = ("train", "val")
"""Parts that `watch` uses; the test part is only for fine-tuned checkpoints."""


@dataclass(frozen=True)
class DevelopmentSet:
    """The images of the train and val parts, or their volumes, eyes or patients."""

    keys: tuple[str, ...]
    patients: tuple[str | None, ...]
    labels_N: Labels
    unit: str
    """`patient`, `volume`, `folder` or `image`."""
    units_N: NDArray[np.int64]


@dataclass(frozen=True)
class ProbeResult:
    """The probe of a checkpoint."""

    tree: dict[str, Any]
    """probe.json: the scores of each of `probe.kinds`, `checkpoint`, `data` and settings."""
    probabilities: dict[str, Floats]
    """(N, C) of each method, in the order of the images."""


def development_set(data: LabelledSet) -> DevelopmentSet:
    """Train and val of a set; DataError where they cannot be cross-validated."""
    parts = [data.parts[name] for name in PARTS]
    keys = tuple(key for part in parts for key in part.keys)
    patients = tuple(patient for part in parts for patient in part.patients)
    labels_N = np.concatenate([part.labels for part in parts])
    units = tuple(unit for part in parts for unit in part.units)
    unit, units_N = bootstrap.resampling_units(patients, keys, units)
    if len(np.unique(labels_N)) < 2 or not patient_folds.folds(labels_N, units_N, 2, 0):
        raise DataError(
            f"{data.path}: train and val have {len(keys)} images of {len(np.unique(units_N))} {unit}s in "
            f"{len(np.unique(labels_N))} classes, but a probe needs two classes and two {unit}s of one: "
            "add labelled images"
        )
    return DevelopmentSet(keys, patients, labels_N, unit, units_N)


def probe_checkpoint(
    start: StartingWeights,
    data: LabelledSet,
    settings: Probe,
    resamples: int,
    folder: str,
    show: ProgressDisplay,
    watched: str = "",
) -> ProbeResult:
    """The probe in `folder`. It is made unless it exists for the same weights, images and settings.

    `watched`: the method that it must have. Probes of older versions have no attentive one.
    """
    try:
        existing = read(folder)
    # A file of a newer version is not damaged. Making it again would destroy the data of that version.
    except FormatError:
        raise
    except RecordError as error:
        show.warn(str(error))
        existing = None
    if existing and _is_same_probe(existing.tree, start, data, settings, resamples):
        if not watched or watched in existing.probabilities:
            return existing
        show.say(f"{start.url} is probed again: {folder} has no {probe_wording.PROBES[watched]}")
    started, images = time.monotonic(), development_set(data)
    show.begin(f"features of {start.url}")
    rows = cached_features(start, data, PARTS, folder, show.advance)
    read_tokens = open_tokens(
        start,
        EncoderImages(data, PARTS, start.backbone),
        images.labels_N,
        images.units_N,
        settings,
        show,
    )
    show.begin("probes of frozen features")
    probabilities = probing.cross_validate(
        np.concatenate([rows[name] for name in PARTS]),
        images.labels_N,
        images.units_N,
        len(data.classes),
        settings,
        read_tokens,
    )
    # From here on the units of train and val stand in place of their images.
    probabilities = {method: pool_parts(p_NC, data, PARTS) for method, p_NC in probabilities.items()}
    scored = development_set(parts_of_units(data, PARTS))
    # Rounded before scoring, so that the scores can be computed again from the CSV.
    probabilities = {method: p_NC.round(DIGITS) for method, p_NC in probabilities.items()}
    tree = {
        **probing.score_probes(
            scored.labels_N,
            probabilities,
            scored.units_N,
            data.classes,
            resamples,
            limit_note(images.labels_N, images.units_N, settings),
        ),
        "images": len(scored.keys),
        "bootstrap": {"unit": scored.unit, "units": int(scored.units_N.max()) + 1, "resamples": resamples},
        "classes": list(data.classes),
        "prediction": f"{settings.folds}-fold cross-validation over train and val",
        "checkpoint": {
            **start.describe(),
            "pretrained_on": pretraining_overlap.count_overlap(
                start, {name: data.parts[name] for name in PARTS}
            ),
        },
        "data": {"path": data.path, "fingerprint": data.fingerprint},
        "probe": to_dict(settings),
        "features_version": FEATURES_VERSION,
        "seconds": round(time.monotonic() - started, 1),
    }
    result = ProbeResult(tree, probabilities)
    _write_probe(folder, result, scored)
    return result


def read(folder: str) -> ProbeResult | None:
    """The probe in a folder, or None where there is none; RecordError where it is damaged."""
    probe_url, predictions_url = storage.join(folder, PROBE), storage.join(folder, PREDICTIONS)
    if not storage.exists(probe_url):
        return None
    tree: dict[str, Any] = dict(json_reader.read(probe_url, ProbeFile, REMEDY))
    try:
        rows = list(csv.DictReader(io.StringIO(storage.read_bytes(predictions_url).decode())))
        if not rows or len(rows) != tree.get("images", len(rows)):
            raise ValueError(f"it has {len(rows):,} rows, but {PROBE} has another number of images")
        probabilities = {
            method: np.array([[float(row[f"{method}_p_{c}"]) for c in tree["classes"]] for row in rows])
            for method in probing.METHODS
            if method in tree
        }
        if not probabilities:
            raise ValueError(f"{PROBE} names no probe")
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise RecordError(
            f"{predictions_url} is damaged ({type(error).__name__}: {error}); {REMEDY}"
        ) from error
    return ProbeResult(tree, probabilities)


def _write_probe(folder: str, result: ProbeResult, images: DevelopmentSet) -> None:
    """Write predictions and scores of a checkpoint's probe into `folder`."""
    # probe.json is deleted first and written last: without it the predictions do not count as a probe.
    storage.delete(storage.join(folder, PROBE))
    classes, text = result.tree["classes"], io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{method}_p_{c}" for method in result.probabilities for c in classes]
    writer.writerow(["key", "patient", "label", *columns])
    all_NP = np.concatenate(list(result.probabilities.values()), axis=1)
    for key, patient, label, p_P in zip(images.keys, images.patients, images.labels_N, all_NP, strict=True):
        writer.writerow([key, patient or "", classes[label], *(f"{p:.{DIGITS}f}" for p in p_P)])
    storage.write_text(storage.join(folder, PREDICTIONS), text.getvalue())
    storage.write_json(storage.join(folder, PROBE), result.tree)


def _is_same_probe(
    tree: dict[str, Any], start: StartingWeights, data: LabelledSet, settings: Probe, resamples: int
) -> bool:
    """Whether a stored probe was made from the same weights, data and settings."""
    return bool(
        tree["checkpoint"]["sha256"] == start.identity
        and tree["checkpoint"]["image_size"] == start.image_size
        and tree["data"]["fingerprint"] == data.fingerprint
        and probing.has_settings(tree["probe"], settings)
        and tree["bootstrap"]["resamples"] == resamples
        and tree.get("features_version") == FEATURES_VERSION
    )
