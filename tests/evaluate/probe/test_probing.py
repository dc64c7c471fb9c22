from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retfound_dist.config.loading import to_dict
from retfound_dist.config.schema import EvalData, EvalModel, Probe
from retfound_dist.errors import DataError
from retfound_dist.evaluate.data.labelled_set import SplitPart
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.data.starting_weights import open_starting_weights
from retfound_dist.evaluate.probe import patient_folds, probing
from retfound_dist.evaluate.probe.frozen_features import CACHE, cached_features
from retfound_dist.evaluate.scores import bootstrap, metrics
from retfound_dist.evaluate.watching.probe_results import development_set
from tests.evaluate.inputs import class_folders, list_patients

OF_MEANS = ("linear", "knn")
TINY_MODEL = EvalModel(name="vit_demo_patch14", image_size=28)


def clusters(each: int = 30, classes: int = 3, apart: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 8) around one point for each class, and labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    centres = np.eye(8)[:classes] * apart
    return (centres[labels] + rng.normal(size=(len(labels), 8))).astype(np.float32), labels


def part(labels: np.ndarray, patients: list[str] | None = None) -> SplitPart:
    keys = tuple(f"k{i:04d}" for i in range(len(labels)))
    return SplitPart(keys, labels, tuple(patients or [None] * len(labels)), ())


def test_both_probes_tell_what_the_features_tell_and_no_more() -> None:
    rows, labels = clusters()
    shuffled = np.random.default_rng(1).permutation(len(labels))
    fitted, tested = shuffled[:60], shuffled[60:]
    found = probing.fit_and_predict(rows[fitted], part(labels[fitted]), rows[tested], 3, Probe())
    for method in OF_MEANS:
        right = (found[method].argmax(1) == labels[tested]).mean()
        assert right > 0.85, method
        np.testing.assert_allclose(found[method].sum(1), 1, atol=1e-9)
    noise = np.random.default_rng(2).normal(size=rows.shape).astype(np.float32)
    blind = probing.fit_and_predict(noise[fitted], part(labels[fitted]), noise[tested], 3, Probe())
    assert all((blind[method].argmax(1) == labels[tested]).mean() < 0.6 for method in OF_MEANS)


def test_no_image_is_predicted_by_a_fit_that_saw_its_patient() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(40), 3)
    labels = rng.integers(0, 3, 40)[groups]
    for fitted, tested in patient_folds.folds(labels, groups, 5, 0):
        assert not set(groups[fitted]) & set(groups[tested])
    # features that name the patient and nothing else: useless for the patients of another fold
    rows = rng.normal(size=(40, 64))[groups].astype(np.float32)
    found = probing.cross_validate(rows, labels, groups, 3, Probe())
    assert (found["linear"].argmax(1) == labels).mean() < 0.6
    leaked = probing.cross_validate(rows, labels, np.arange(len(labels)), 3, Probe())
    assert (leaked["knn"].argmax(1) == labels).mean() > 0.9


def test_a_class_of_one_image_and_a_class_absent_from_a_fold_are_no_fault() -> None:
    rows, labels = clusters(each=6)
    labels = np.append(labels, 3)
    rows = np.vstack([rows, rows[:1]])
    found = probing.cross_validate(rows, labels, np.arange(len(labels)), 5, Probe())
    assert all(np.isfinite(p).all() and p.shape == (19, 5) for p in found.values())
    assert not found["linear"][:, 4].any()


def test_features_are_computed_once_and_again_for_other_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_labelled_set(EvalData(path=str(class_folders(tmp_path / "set"))), 28)
    start = open_starting_weights("none", TINY_MODEL)
    first = cached_features(start, data, ("train", "val"), str(tmp_path))
    assert first["train"].shape == (len(data.parts["train"]), 192)
    (tmp_path / "other" / "set").mkdir(parents=True)
    other = load_labelled_set(EvalData(path=str(class_folders(tmp_path / "other" / "more", each=9))), 28)
    assert cached_features(start, other, ("val",), str(tmp_path))["val"].shape[0] == len(other.parts["val"])
    again = cached_features(start, data, ("train", "val"), str(tmp_path))
    np.testing.assert_array_equal(first["train"], again["train"])
    monkeypatch.setattr("retfound_dist.evaluate.probe.frozen_features.frozen_encoder", None)
    np.testing.assert_array_equal(cached_features(start, data, ("val",), str(tmp_path))["val"], first["val"])
    (tmp_path / CACHE).write_bytes(b"PK half a file")
    with pytest.raises(TypeError):  # a damaged cache is made again, and would need the encoder
        cached_features(start, data, ("val",), str(tmp_path))


def test_the_images_for_probing_are_train_and_val_with_their_patients(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set")
    list_patients(root)
    data = load_labelled_set(EvalData(path=str(root)), 28)
    found = development_set(data)
    assert not set(found.keys) & set(data.parts["test"].keys)
    assert len(found.keys) == len(data.parts["train"]) + len(data.parts["val"])
    assert found.unit == "patient"
    assert found.units_N.max() + 1 == len(set(found.patients))


def test_too_few_images_to_probe_are_one_line(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", each=5, classes=("A", "B"))
    data = load_labelled_set(EvalData(path=str(root)), 28)
    empty = SplitPart((), np.array([], np.int64), (), ())
    alone = SplitPart(("a",), np.array([0]), (None,), data.parts["train"].images[:1])
    data.parts.update(train=alone, val=empty)
    with pytest.raises(DataError, match="a probe needs two classes and two images of one"):
        development_set(data)


def test_where_one_class_alone_was_fitted_on_it_is_certain() -> None:
    rows = np.eye(4, dtype=np.float32)
    found = probing.fit_and_predict(rows[:2], part(np.array([1, 1])), rows, 3, Probe())
    for method in OF_MEANS:
        assert found[method].tolist() == [[0, 1, 0]] * 4


def test_every_image_is_predicted_by_the_fit_on_the_folds_that_it_is_not_in() -> None:
    rows, labels = clusters(each=8)
    groups, setting = np.arange(24) // 2, Probe(strengths=(0.1,), folds=4, neighbours=5)
    found = probing.cross_validate(rows, labels, groups, 3, setting)
    held = patient_folds.folds(labels, groups, 4, 0)
    assert sorted(np.concatenate([tested for _, tested in held])) == list(range(24))
    for fitted, tested in held:
        alone = probing.fit_and_predict(rows[fitted], part(labels[fitted]), rows[tested], 3, setting)
        for method in OF_MEANS:
            np.testing.assert_allclose(found[method][tested], alone[method], rtol=1e-6)


def test_a_method_s_scores_are_the_tables_and_its_intervals_those_over_patients() -> None:
    _, labels = clusters(each=10)
    p = np.random.default_rng(4).dirichlet(np.ones(3), 30) + np.eye(3)[labels] / 2
    p /= p.sum(1, keepdims=True)
    units = np.arange(30) // 3
    found = probing.probe_scores(labels, p, units, "ABC", 40)
    table = metrics.evaluate(labels, p, "ABC")
    assert {name: found[name] for name in table} == table
    spans = bootstrap.intervals(bootstrap.scores(labels, p, bootstrap.resample(units, 40, 0)))
    assert found["ci95"] == spans
    assert set(found) == {*table, "ci95"}


def test_the_attentive_probe_is_compared_on_the_same_resamples_of_the_same_patients() -> None:
    labels, units = np.arange(30) % 3, np.arange(30) // 2
    draw = np.random.default_rng(6)
    weak, strong = (draw.dirichlet(np.ones(3), 30) + k * np.eye(3)[labels] for k in (0.2, 1.0))
    predicted = {
        "linear": weak / weak.sum(1, keepdims=True),
        "attentive": strong / strong.sum(1, keepdims=True),
    }
    scored = probing.score_probes(labels, predicted, units, "ABC", 40, "a note")
    weights = bootstrap.resample(units, 40, 0)
    one, other = (
        bootstrap.scores(labels, predicted[name], weights)["macro"]["aupr"]
        for name in ("attentive", "linear")
    )
    gap = scored["attentive"]["minus_linear"]
    assert gap["ci95"] == bootstrap.interval(one - other)
    assert gap["difference"] == scored["attentive"]["macro"]["aupr"] - scored["linear"]["macro"]["aupr"]
    assert gap["real"]
    assert scored["attentive"]["note"] == "a note"
    assert scored["linear"] == probing.probe_scores(labels, predicted["linear"], units, "ABC", 40)


def test_the_probes_are_those_that_are_asked_for() -> None:
    rows, labels = clusters(each=6)
    for kinds in (("linear",), ("knn",), ("linear", "knn")):
        predicted = probing.cross_validate(rows, labels, np.arange(18), 3, Probe(kinds=kinds, folds=2))
        assert set(predicted) == set(kinds)


def test_settings_that_were_added_with_the_attentive_probe_do_not_make_an_older_result_another() -> None:
    older = {
        name: value for name, value in to_dict(Probe()).items() if name not in ("kinds", "attentive_images")
    }
    assert probing.has_settings(older, Probe(kinds=("linear",), attentive_images=7))
    assert not probing.has_settings(older, Probe(seed=1))
    assert not probing.has_settings(to_dict(Probe()), Probe(kinds=("linear",)))
    assert probing.has_settings({"kinds": to_dict(Probe())["kinds"]}, Probe())
