from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retfound_dist.errors import DataError
from retfound_dist.evaluate import probe
from retfound_dist.evaluate.dataset import Part, load
from retfound_dist.evaluate.features import CACHE, features_of
from retfound_dist.evaluate.probed import development
from retfound_dist.evaluate.start import open_start
from retfound_dist.schema import EvalData, EvalModel, Probe
from tests.evaluate.inputs import class_folders, list_patients

TINY_MODEL = EvalModel(name="vit_demo_patch14", image_size=28)


def clusters(each: int = 30, classes: int = 3, apart: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 8) around one point for each class, and labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    centres = np.eye(8)[:classes] * apart
    return (centres[labels] + rng.normal(size=(len(labels), 8))).astype(np.float32), labels


def part(labels: np.ndarray, patients: list[str] | None = None) -> Part:
    keys = tuple(f"k{i:04d}" for i in range(len(labels)))
    return Part(keys, labels, tuple(patients or [None] * len(labels)), ())


def test_both_probes_tell_what_the_features_tell_and_no_more() -> None:
    rows, labels = clusters()
    shuffled = np.random.default_rng(1).permutation(len(labels))
    fitted, tested = shuffled[:60], shuffled[60:]
    found = probe.held_out(rows[fitted], part(labels[fitted]), rows[tested], 3, Probe())
    for method in probe.METHODS:
        right = (found[method].argmax(1) == labels[tested]).mean()
        assert right > 0.85, method
        np.testing.assert_allclose(found[method].sum(1), 1, atol=1e-9)
    noise = np.random.default_rng(2).normal(size=rows.shape).astype(np.float32)
    blind = probe.held_out(noise[fitted], part(labels[fitted]), noise[tested], 3, Probe())
    assert all((blind[method].argmax(1) == labels[tested]).mean() < 0.6 for method in probe.METHODS)


def test_neighbours_votes_are_those_worked_out_by_hand() -> None:
    rows = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    tested = np.array([[2, 0]], np.float32)
    found = probe.held_out(rows, part(np.array([0, 1, 2])), tested, 3, Probe(temperature=0.5, neighbours=3))
    votes = np.exp(np.array([1, 0, np.sqrt(0.5)]) / 0.5)
    np.testing.assert_allclose(found["knn"][0], votes / votes.sum(), rtol=1e-5)


def test_no_image_is_predicted_by_a_fit_that_saw_its_patient() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(40), 3)
    labels = rng.integers(0, 3, 40)[groups]
    for fitted, tested in probe.folds(labels, groups, 5, 0):
        assert not set(groups[fitted]) & set(groups[tested])
    # features that name the patient and nothing else: useless for the patients of another fold
    rows = rng.normal(size=(40, 64))[groups].astype(np.float32)
    found = probe.cross_validated(rows, labels, groups, 3, Probe())
    assert (found["linear"].argmax(1) == labels).mean() < 0.6
    leaked = probe.cross_validated(rows, labels, np.arange(len(labels)), 3, Probe())
    assert (leaked["knn"].argmax(1) == labels).mean() > 0.9


def test_a_class_of_one_image_and_a_class_absent_from_a_fold_are_no_fault() -> None:
    rows, labels = clusters(each=6)
    labels = np.append(labels, 3)
    rows = np.vstack([rows, rows[:1]])
    found = probe.cross_validated(rows, labels, np.arange(len(labels)), 5, Probe())
    assert all(np.isfinite(p).all() and p.shape == (19, 5) for p in found.values())
    assert not found["linear"][:, 4].any()


def test_features_are_computed_once_and_again_for_other_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load(EvalData(path=str(class_folders(tmp_path / "set"))), 28)
    start = open_start("none", TINY_MODEL)
    first = features_of(start, data, ("train", "val"), str(tmp_path))
    assert first["train"].shape == (len(data.parts["train"]), 192)
    (tmp_path / "other" / "set").mkdir(parents=True)
    other = load(EvalData(path=str(class_folders(tmp_path / "other" / "more", each=9))), 28)
    assert features_of(start, other, ("val",), str(tmp_path))["val"].shape[0] == len(other.parts["val"])
    again = features_of(start, data, ("train", "val"), str(tmp_path))
    np.testing.assert_array_equal(first["train"], again["train"])
    monkeypatch.setattr("retfound_dist.evaluate.features.frozen_encoder", None)
    np.testing.assert_array_equal(
        features_of(start, data, ("val",), str(tmp_path))["val"], first["val"]
    )
    (tmp_path / CACHE).write_bytes(b"PK half a file")
    with pytest.raises(TypeError):  # a damaged cache is made again, and would need the encoder
        features_of(start, data, ("val",), str(tmp_path))


def test_the_images_for_probing_are_train_and_val_with_their_patients(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set")
    list_patients(root)
    data = load(EvalData(path=str(root)), 28)
    found = development(data)
    assert not set(found.keys) & set(data.parts["test"].keys)
    assert len(found.keys) == len(data.parts["train"]) + len(data.parts["val"])
    assert found.unit == "patient"
    assert found.units_N.max() + 1 == len(set(found.patients))


def test_too_few_images_to_probe_are_one_line(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", each=5, classes=("A", "B"))
    data = load(EvalData(path=str(root)), 28)
    empty = Part((), np.array([], np.int64), (), ())
    alone = Part(("a",), np.array([0]), (None,), data.parts["train"].images[:1])
    data.parts.update(train=alone, val=empty)
    with pytest.raises(DataError, match="a probe needs two classes and two images of one"):
        development(data)
