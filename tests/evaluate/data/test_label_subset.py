from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from retfound_dist.config.schema import EvalData
from retfound_dist.evaluate.data.label_subset import (
    count_class_units,
    load_label_subset,
    shot_indices,
    subset_indices,
    whole_train,
    with_label_share,
    with_label_shots,
)
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from tests.evaluate.inputs import CLASSES, class_folders, list_patients

SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)


def test_a_smaller_share_lies_in_every_larger_one_and_every_class_keeps_its_share() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(300), 2)
    labels = rng.choice(4, 300, p=[0.6, 0.25, 0.13, 0.02])[units]
    before: set[int] = set()
    for share in SHARES:
        kept = subset_indices(labels, units, share, seed=5)
        assert before <= set(kept)
        before = set(kept)
        for label in range(4):
            n = (labels == label).sum()
            assert (labels[kept] == label).sum() == max(1, round(share * n))
    assert len(before) == 600
    few = subset_indices(labels, units, 0.25, seed=5)
    halves = len(np.unique(units[few])) / len(few)
    assert halves < 0.53  # both images of a patient come together, but for one patient a class
    assert not np.array_equal(few, subset_indices(labels, units, 0.25, seed=6))


def test_only_train_shrinks_and_the_set_is_told_from_the_whole(tmp_path: Path) -> None:
    data = load_labelled_set(EvalData(path=str(class_folders(tmp_path))), 28)
    some = with_label_share(data, 0.5, 0)
    assert len(some.parts["train"]) == len(data.parts["train"]) // 2
    assert some.parts["test"] is data.parts["test"]
    assert some.fingerprint != data.fingerprint
    assert with_label_share(data, 1.0, 0) is data
    kept = [data.parts["train"].keys.index(key) for key in some.parts["train"].keys]
    np.testing.assert_array_equal(some.parts["train"].labels, data.parts["train"].labels[kept])
    assert all(some.parts["train"].images[i] is data.parts["train"].images[k] for i, k in enumerate(kept))


def patients_with_several_images() -> tuple[np.ndarray, np.ndarray]:
    """Labels and patients of 600 images: two to four images of each patient, of one class or of two."""
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(200), rng.integers(2, 5, 200))
    labels = rng.choice(4, 200, p=[0.6, 0.25, 0.13, 0.02])[units]
    other_eye = rng.random(len(units)) < 0.1
    return np.where(other_eye, (labels + 1) % 4, labels), units


def test_shots_are_so_many_patients_of_each_class_with_all_of_their_images_of_it() -> None:
    labels, units = patients_with_several_images()
    chosen = shot_indices(labels, units, 3, seed=5, draw=0)
    for label in range(4):
        of_class = chosen[labels[chosen] == label]
        patients = np.unique(units[of_class])
        assert len(patients) == 3
        assert list(of_class) == list(np.flatnonzero((labels == label) & np.isin(units, patients)))


def test_fewer_shots_are_part_of_more_shots_of_the_same_draw_and_draws_and_seeds_differ() -> None:
    labels, units = patients_with_several_images()
    before: set[int] = set()
    for shots in (1, 2, 4, 8, 16, 1000):
        kept = set(shot_indices(labels, units, shots, seed=5, draw=2))
        assert before < kept
        before = kept
    # More patients than a class has: all of them.
    assert len(before) == len(labels)
    draws = {tuple(shot_indices(labels, units, 2, seed=5, draw=draw)) for draw in range(20)}
    assert len(draws) == 20
    assert tuple(shot_indices(labels, units, 2, seed=5, draw=7)) in draws
    assert tuple(shot_indices(labels, units, 2, seed=6, draw=7)) not in draws


def test_a_set_with_few_patients_has_the_same_val_and_test_and_a_fingerprint_of_its_own(
    tmp_path: Path,
) -> None:
    list_patients(class_folders(tmp_path, each=16))
    config = EvalData(path=str(tmp_path), label_shots=2, shot_draw=1)
    few = load_label_subset(config, 28)
    whole = load_label_subset(whole_train(config), 28)
    assert few.counts()["patients"]["train"] == 6
    assert few.parts["train"].keys != with_label_shots(whole, 2, 0, 2).parts["train"].keys
    for part in ("val", "test"):
        assert few.parts[part].keys == whole.parts[part].keys
    assert few.selection is not None
    assert [whole.parts["train"].keys[i] for i in few.selection.indices_N] == list(few.parts["train"].keys)
    subsets = [(2, 0, 0), (2, 0, 1), (2, 1, 1), (4, 0, 1)]
    assert len({with_label_shots(whole, *one).fingerprint for one in subsets} | {whole.fingerprint}) == 5
    assert few.fingerprint == with_label_shots(whole, 2, 0, 1).fingerprint


def test_a_class_s_patients_are_counted_and_images_where_no_patient_is_known(tmp_path: Path) -> None:
    (tmp_path / "known").mkdir()
    root = class_folders(tmp_path / "known" / "set", each=16)
    images = load_labelled_set(EvalData(path=str(root)), 28)
    assert count_class_units(images) == ("image", dict(images.counts()["per_class"]["train"]))
    list_patients(root)
    unit, counts = count_class_units(load_labelled_set(EvalData(path=str(root)), 28))
    assert unit == "patient"
    assert counts == dict.fromkeys(CLASSES, 5)


def test_a_share_and_shots_together_are_refused() -> None:
    with pytest.raises(ValidationError, match="label_share and label_shots both choose images"):
        EvalData(path="set", label_share=0.5, label_shots=2)
