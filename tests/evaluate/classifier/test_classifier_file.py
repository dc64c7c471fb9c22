"""The folder of a classifier: what is refused, and with which advice."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from retfound_dist.errors import CheckpointError, FormatError, WeightsError
from retfound_dist.evaluate.classifier import classifier_file
from retfound_dist.evaluate.finetune.finetuning import KeptSeed
from retfound_dist.evaluate.tasks.task_facts import TaskFacts
from retfound_dist.io import storage
from tests.evaluate.inputs import checkpoint

FIELDS = {
    "task": {"kind": "multiclass"},
    "classes": ["A", "B"],
    "backbone": {},
    "image_size": 28,
    "normalisation": {},
    "recipe": {},
    "batch": 8,
    "precision": "fp32",
    "digits": 8,
    "temperature": {"value": 1.0},
    "starting_weights": {},
    "data": {},
    "scores": {},
    "versions": {},
}


def kept(folder: Path, mark: str) -> KeptSeed:
    """Weights of one seed, stored."""
    file = folder / f"seed_0-{mark}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(mark.encode())
    return KeptSeed(0, 3, file.name, storage.file_info(str(file)))


def test_a_new_classifier_replaces_the_weights_of_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    url, folder = str(tmp_path), tmp_path
    classifier_file.write(url, FIELDS, [kept(folder, "00000001")])
    (folder / "notes.txt").write_text("of a person")
    classifier_file.write(url, FIELDS, [kept(folder, "00000002")])
    names = {"classifier.json", "notes.txt", "seed_0-00000002.safetensors"}
    assert {path.name for path in folder.iterdir()} == names
    assert classifier_file.read(url).seeds[0].file == "seed_0-00000002.safetensors"
    classifier_file.delete(url)
    assert {path.name for path in folder.iterdir()} == {"notes.txt"}


def test_a_pretraining_checkpoint_is_refused_with_the_line_to_type(tmp_path: Path) -> None:
    url = checkpoint(tmp_path / "run", 7)
    with pytest.raises(WeightsError, match=rf"is a checkpoint.*retfound evaluate .* checkpoint={url} "):
        classifier_file.resolve(url)
    with pytest.raises(WeightsError, match="is a run, not a classifier: fine-tune it first"):
        classifier_file.resolve(str(tmp_path / "run"))


def test_an_evaluation_without_a_classifier_and_nothing_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"without a classifier.*--force"):
        classifier_file.resolve(str(tmp_path))
    with pytest.raises(WeightsError, match="there is nothing at"):
        classifier_file.resolve(str(tmp_path / "none"))


def test_another_format_version_and_a_name_that_leads_out_are_refused(tmp_path: Path) -> None:
    classifier_file.write(str(tmp_path), FIELDS, [kept(tmp_path, "00000001")])
    file = tmp_path / "classifier.json"
    tree = json.loads(file.read_text())
    file.write_text(json.dumps(tree | {"format": 2}))
    with pytest.raises(FormatError, match="format 2"):
        classifier_file.read(str(tmp_path))
    file.write_text(json.dumps(tree | {"files": {"../../etc/passwd": {"bytes": 1, "sha256": "0" * 64}}}))
    with pytest.raises(CheckpointError, match="etc/passwd"):
        classifier_file.read(str(tmp_path))
    file.write_text(json.dumps(tree | {"files": {}}))
    with pytest.raises(WeightsError, match="no size and sha256"):
        classifier_file.read(str(tmp_path))


def test_a_task_is_read_and_one_that_is_not_known_or_damaged_is_refused() -> None:
    task = TaskFacts("multilabel", ("cyst", "fluid"))
    facts = SimpleNamespace(task=task.to_json(), classes=["cyst", "fluid"], thresholds={})
    assert classifier_file.task_of(facts, "url") == task  # type: ignore[arg-type]
    for fields in (
        {"task": {"kind": "survival"}},
        {"task": {"kind": "multilabel"}},
        {"classes": ["cyst"]},
        {"thresholds": {"cyst": {"threshold": "high"}}},
    ):
        with pytest.raises(
            WeightsError, match=r"url.*(does not know|the task in classifier.json is damaged)"
        ):
            classifier_file.task_of(SimpleNamespace(**{**vars(facts), **fields}), "url")  # type: ignore[arg-type]
    facts.task = {"kind": "multiclass"}
    assert classifier_file.task_of(facts, "url") is None  # type: ignore[arg-type]
