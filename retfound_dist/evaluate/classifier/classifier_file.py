"""The folder of a kept classifier: the weights of each seed, and `classifier.json`, written last.

    OUT/classifier/classifier.json
    OUT/classifier/seed_0-3f9a61c0.safetensors

`classifier.json` lists each file with its size and sha256. Without it there is no classifier. The weights of
every evaluation have new names, so an evaluation that is made again never changes a file that an older
`classifier.json` lists.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from retfound_dist.config.schema import MULTICLASS
from retfound_dist.errors import CheckpointError, FormatError, RecordError, StorageError, WeightsError
from retfound_dist.evaluate.finetune.finetuning import KeptSeed
from retfound_dist.evaluate.tasks.label_thresholds import threshold_values
from retfound_dist.evaluate.tasks.task_facts import KINDS, TaskFacts, facts_from_json
from retfound_dist.formats import url_kinds
from retfound_dist.io import storage, verified_files
from retfound_dist.io.storage import FileInfo
from retfound_dist.records import json_reader
from retfound_dist.records.plain_names import checked_path

FORMAT = 1
FOLDER, CLASSIFIER = "classifier", "classifier.json"
POOL_PREFIX = "unit_pool."
"""Begins the names of the attention head's weights, where a seed has one."""
REMEDY = "evaluate again with --force, or copy the whole folder again"
"""How to replace a damaged classifier."""
_WEIGHTS = re.compile(r"^seed_\d+-[0-9a-f]{8}\.safetensors$")


@dataclass(frozen=True)
class SeedEntry:
    """One entry of `seeds` in classifier.json."""

    seed: json_reader.Count
    epoch: json_reader.Count
    file: str


@dataclass(frozen=True, kw_only=True)
class ClassifierFile:
    """The fields of classifier.json."""

    task: dict[str, Any]
    """`kind`: what is predicted; `multiclass` is one class of several."""
    classes: list[str]
    backbone: dict[str, Any]
    """`Backbone.to_json`: how the network is built without its starting weights."""
    image_size: json_reader.Count
    normalisation: dict[str, Any]
    """`mean`, `std` and `interpolation` of the network's input."""
    recipe: dict[str, Any]
    """The settings of the fine-tuning."""
    batch: json_reader.Count
    """Images of every forward pass. Another number may change the last digits of a probability."""
    precision: str
    """`fp32` or `bf16`, as the test part was predicted."""
    digits: json_reader.Count
    """Decimals of a probability."""
    seeds: list[SeedEntry]
    files: dict[str, FileInfo]
    temperature: dict[str, Any]
    """`value`, fitted on val, and the number of images or why it was not fitted."""
    starting_weights: dict[str, Any]
    """The entry `checkpoint` of metrics.json, and the licence of the weights."""
    data: dict[str, Any]
    """Fingerprint and counts of the labelled set. No path: a classifier may be given away."""
    scores: dict[str, Any]
    """`macro` and `ci95` of the test part."""
    versions: dict[str, str]
    unit: dict[str, str] = field(default_factory=lambda: {"kind": "image", "pool": "mean"})
    """`kind`: `data.unit`, which the scores and the temperature are for. `pool`: `finetune.pool`."""
    thresholds: dict[str, Any] = field(default_factory=dict)
    """Decision thresholds of each question to classes, or of each label of `multilabel`, chosen on val."""


def classifier_url(evaluation_url: str) -> str:
    """The folder of the classifier that an evaluation keeps."""
    return storage.join(evaluation_url, FOLDER)


def has_classifier(evaluation_url: str) -> bool:
    """Whether an evaluation has kept its classifier."""
    return storage.exists(storage.join(classifier_url(evaluation_url), CLASSIFIER))


def resolve(url: str) -> str:
    """The classifier's folder for its own URL or that of its evaluation; WeightsError where there is none."""
    for candidate in (url, classifier_url(url)):
        if storage.exists(storage.join(candidate, CLASSIFIER)):
            return candidate
    raise WeightsError(_missing_message(url))


def _missing_message(url: str) -> str:
    """The text of the error for a URL without a classifier: what is there, and what to give instead."""
    kind = url_kinds.kind_at(url)
    if kind in (url_kinds.CHECKPOINT, url_kinds.RUN, url_kinds.WEIGHTS, url_kinds.MODEL_FOLDER):
        return (
            f"{url} is {kind}, not a classifier: fine-tune it first, with "
            f"`retfound evaluate configs/evaluate_octid.toml checkpoint={url} data.path=LABELLED_SET "
            "out.url=EVALUATION`, and give EVALUATION/classifier"
        )
    if kind == url_kinds.EVALUATION:
        return (
            f"{url} is an evaluation without a classifier: finetune.keep was false, an earlier version made "
            "it, or it is a row that a comparison did not keep; evaluate again with --force"
        )
    if kind == url_kinds.COMPARISON:
        return f"{url} is a comparison: give the classifier of one of its rows, {url}/ROW/classifier"
    what_is_there = "there is nothing at" if kind == url_kinds.NOTHING else f"{kind} is at"
    return f"{what_is_there} {url}: give the folder classifier/ that `retfound evaluate` has written"


def read(url: str) -> ClassifierFile:
    """classifier.json of a classifier's folder.

    WeightsError where there is none or it is damaged, FormatError where it is of another version,
    StorageError where it cannot be read.
    """
    where = storage.join(url, CLASSIFIER)
    try:
        data = verified_files.read(where)
        file = json_reader.parse(data, ClassifierFile, where, REMEDY, format=FORMAT)
    except StorageError as error:
        if verified_files.is_missing(error):
            raise WeightsError(_missing_message(url)) from error
        raise
    except FormatError:
        raise
    except RecordError as error:
        raise WeightsError(str(error)) from error
    for name in [*file.files, *(entry.file for entry in file.seeds)]:
        # Names become local paths when files are fetched. `../x` in a forged file would lead out of it.
        checked_path(name, where, CheckpointError)
    if missing := [entry.file for entry in file.seeds if entry.file not in file.files]:
        raise WeightsError(f"{where} lists no size and sha256 of {missing[0]}; {REMEDY}")
    return file


def task_of(file: ClassifierFile, url: str) -> TaskFacts | None:
    """What the classifier predicts; None for classes. WeightsError where it is not known or damaged."""
    kind = file.task.get("kind")
    if kind == MULTICLASS:
        return None
    if kind not in KINDS:
        raise WeightsError(
            f"{url} predicts {kind!r}, which this version does not know: install the version that wrote it"
        )
    try:
        task = facts_from_json(file.task)
        threshold_values(task.targets, file.thresholds)
        if len(task.predicted_names) != len(file.classes):
            raise ValueError(f"it has {len(file.classes)} classes and {len(task.predicted_names)} outputs")
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{url}: the task in {CLASSIFIER} is damaged: {error}") from error
    return task


def write(url: str, tree: dict[str, Any], kept: Sequence[KeptSeed]) -> None:
    """Commit a classifier whose weights are all stored, and delete the weights of an older one."""
    seeds = [{"seed": one.seed, "epoch": one.epoch, "file": one.file} for one in kept]
    files = {one.file: {"bytes": one.info.bytes, "sha256": one.info.sha256} for one in kept}
    verified_files.write_json(
        storage.join(url, CLASSIFIER), {"format": FORMAT, **tree, "seeds": seeds, "files": files}
    )
    _delete_weights(url, except_for=set(files))


def replace_thresholds(url: str, thresholds: dict[str, Any]) -> None:
    """Write other decision thresholds into classifier.json; its other fields and the weights stay."""
    where = storage.join(url, CLASSIFIER)
    tree = json_reader.parse(verified_files.read(where), dict, where, REMEDY, format=FORMAT)
    verified_files.write_json(where, {**tree, "thresholds": thresholds})


def delete(url: str) -> None:
    """Delete a classifier: first classifier.json, so that a reader never sees a part of it."""
    if storage.list_names(url):
        storage.delete(storage.join(url, CLASSIFIER))
        _delete_weights(url, except_for=set())
        # Other files stay, because a person has put them there.
        if not storage.list_names(url):
            storage.delete(url)


def _delete_weights(url: str, except_for: set[str]) -> None:
    for name in storage.list_names(url):
        if _WEIGHTS.match(name) and name not in except_for:
            storage.delete(storage.join(url, name))


def fetch(url: str, name: str, info: FileInfo, target: str) -> None:
    """Copy one file of a classifier to a local path; WeightsError where it is not the file that was kept."""
    if difference := verified_files.fetch(storage.join(url, name), target, info):
        raise WeightsError(f"{storage.join(url, name)} differs from {CLASSIFIER} ({difference}); {REMEDY}")
