from __future__ import annotations

from pathlib import Path

import numpy as np

from retfound_dist.config.schema import EvalData
from retfound_dist.evaluate.data.label_subset import subset_indices, with_label_share
from retfound_dist.evaluate.data.labelled_set import load_labelled_set
from tests.evaluate.inputs import class_folders

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
