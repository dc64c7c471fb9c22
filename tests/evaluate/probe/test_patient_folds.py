from __future__ import annotations

import numpy as np
import pytest

from retfound_dist.evaluate.probe import patient_folds


@pytest.mark.parametrize(
    ("labels", "groups", "count", "folds"),
    [
        ([0, 1] * 6, range(12), 5, 5),
        ([0, 1] * 6, range(12), 3, 3),
        ([0, 1] * 6, [0, 1, 2] * 4, 5, 3),  # three patients
        ([0, 1] * 6, [0] * 12, 5, 0),  # one patient
        ([0, 0, 0, 1], range(4), 5, 3),  # three images of the commonest class
        ([0, 1, 2], range(3), 5, 0),
    ],
)
def test_there_are_no_more_folds_than_patients_or_images_of_a_class(
    labels: list[int], groups: list[int], count: int, folds: int
) -> None:
    assert len(patient_folds.folds(np.array(labels), np.array(groups), count, 0)) == folds


def test_folds_follow_from_their_seed() -> None:
    labels, groups = np.array([0, 1] * 20), np.arange(40)
    first, same, other = (
        [t.tolist() for _, t in patient_folds.folds(labels, groups, 4, seed)] for seed in (0, 0, 1)
    )
    assert first == same
    assert first != other
