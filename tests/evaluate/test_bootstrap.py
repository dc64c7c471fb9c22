from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from retfound_dist.evaluate import bootstrap, metrics


def predictions(n: int = 200, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1)
    labels = draw.integers(0, classes, n)
    p = draw.dirichlet(np.ones(classes), n) + 0.5 * np.eye(classes)[labels]
    p = np.round(p / p.sum(1, keepdims=True), 2) + 0.01  # ties
    return labels, p / p.sum(1, keepdims=True)


def test_weights_of_one_give_the_scores_of_metrics() -> None:
    labels, p = predictions()
    drawn = bootstrap.scores(labels, p, np.ones((1, len(labels))))
    exact = metrics.evaluate(labels, p, "ABCD")
    for kind in ("legacy", "macro"):
        for name, values in drawn[kind].items():
            assert values[0] == pytest.approx(exact[kind][name]), (kind, name)


def test_a_weighted_resample_equals_scikit_learn_with_weights() -> None:
    labels, p = predictions()
    weights = bootstrap.resample(np.arange(len(labels)) // 3, 5, seed=0)
    drawn = bootstrap.scores(labels, p, weights)["macro"]
    for r, w in enumerate(weights):
        areas = [sk.roc_auc_score(labels == c, p[:, c], sample_weight=w) for c in range(4)]
        averages = [sk.average_precision_score(labels == c, p[:, c], sample_weight=w) for c in range(4)]
        assert drawn["auroc"][r] == pytest.approx(np.mean(areas))
        assert drawn["aupr"][r] == pytest.approx(np.mean(averages))
        mcc = sk.matthews_corrcoef(labels, p.argmax(1), sample_weight=w)
        assert drawn["mcc"][r] == pytest.approx(mcc)
        assert drawn["log_loss"][r] == pytest.approx(sk.log_loss(labels, p, sample_weight=w))


def test_seeds_that_differ_widen_the_interval_and_equal_ones_do_not() -> None:
    labels, p = predictions()
    weights = bootstrap.resample(np.arange(len(labels)), 400, 0)
    alone = bootstrap.scores(labels, p, weights)
    for kind, group in bootstrap.over_seeds(labels, np.stack([p, p, p]), weights).items():
        for name, values in group.items():
            np.testing.assert_allclose(values, alone[kind][name], err_msg=name)
    bad = np.random.default_rng(2).dirichlet(np.ones(4), len(labels))
    mixed = bootstrap.over_seeds(labels, np.stack([p, p, bad]), weights)["macro"]["auroc"]
    assert mixed.std() > 2 * alone["macro"]["auroc"].std()


def test_a_resample_scores_the_mean_of_the_seeds_that_it_drew() -> None:
    labels, p = predictions()
    seeds = np.stack([p, np.roll(p, 1, axis=0)])
    every = np.ones((200, len(labels)))
    found = set(bootstrap.over_seeds(labels, seeds, every)["macro"]["aupr"].round(9))
    both = bootstrap.scores(labels, seeds.mean(0), every[:1])["macro"]["aupr"]
    each = [bootstrap.scores(labels, one, every[:1])["macro"]["aupr"] for one in seeds]
    assert found == {round(float(x[0]), 9) for x in (both, *each)}


def test_all_images_of_a_patient_come_along_together() -> None:
    unit, numbers = bootstrap.units_of(["a", "b", "a", "c", "b"], list("12345"))
    weights = bootstrap.resample(numbers, 50, seed=0)
    assert unit == "patient"
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    patients = weights[:, [0, 1, 3]]
    assert (patients.sum(1) == 3).all()


def test_images_are_the_units_where_a_patient_is_unknown() -> None:
    unit, numbers = bootstrap.units_of(["a", None, "a"], ["x", "y", "z"])
    assert unit == "image"
    assert len(set(numbers)) == 3


def test_resamples_follow_from_the_seed() -> None:
    units = np.arange(20)
    assert (bootstrap.resample(units, 10, 3) == bootstrap.resample(units, 10, 3)).all()
    assert (bootstrap.resample(units, 10, 3) != bootstrap.resample(units, 10, 4)).any()


def test_patients_with_many_alike_images_widen_the_interval() -> None:
    labels, p = predictions(40)
    labels, p = np.repeat(labels, 5), np.repeat(p, 5, axis=0)

    def width(units: np.ndarray) -> float:
        drawn = bootstrap.scores(labels, p, bootstrap.resample(units, 400, 0))
        low, high = bootstrap.intervals(drawn)["macro"]["accuracy"] or [0, 0]
        return high - low

    assert width(np.arange(200) // 5) > 1.5 * width(np.arange(200))


def test_an_interval_leaves_out_resamples_without_a_score_and_gives_up_when_most_have_none() -> None:
    values = np.array([np.nan, 0.1, 0.2, 0.3])
    assert bootstrap.interval(values) == pytest.approx([0.105, 0.295])
    assert bootstrap.interval(np.array([np.nan, np.nan, np.nan, 0.3])) is None


def test_a_difference_is_real_when_its_interval_leaves_zero_out() -> None:
    draw = np.random.default_rng(0)
    low, high = draw.normal(0.5, 0.05, 500), draw.normal(0.9, 0.05, 500)
    assert bootstrap.paired(high, low)["real"]
    assert not bootstrap.paired(low, draw.normal(0.5, 0.05, 500))["real"]
