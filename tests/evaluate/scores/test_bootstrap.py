from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from sklearn import metrics as sk

from retfound_dist.evaluate.scores import bootstrap, metrics
from tests.evaluate.scores.drawn_predictions import predictions
from tests.evaluate.scores.test_ranking_sums import slow_counts


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


def test_an_interval_leaves_out_resamples_without_a_score_and_gives_up_when_most_have_none() -> None:
    values = np.array([np.nan, 0.1, 0.2, 0.3])
    assert bootstrap.interval(values) == pytest.approx([0.105, 0.295])
    assert bootstrap.interval(np.array([np.nan, np.nan, np.nan, 0.3])) is None


def test_a_difference_is_real_when_its_interval_leaves_zero_out() -> None:
    draw = np.random.default_rng(0)
    low, high = draw.normal(0.5, 0.05, 500), draw.normal(0.9, 0.05, 500)
    assert bootstrap.paired_difference(high, low)["real"]
    assert not bootstrap.paired_difference(low, draw.normal(0.5, 0.05, 500))["real"]


def test_three_images_scored_by_hand_in_two_resamples() -> None:
    """Images A, A, B with p(B) 0.2, 0.6, 0.6: a tie between the second A and the B."""
    labels, p_b = np.array([0, 0, 1]), np.array([0.2, 0.6, 0.6])
    p = np.stack([1 - p_b, p_b], axis=1)
    drawn = bootstrap.scores(labels, p, np.array([[1.0, 1, 1], [0, 2, 1]]))
    macro, legacy = drawn["macro"], drawn["legacy"]
    assert macro["accuracy"] == pytest.approx([2 / 3, 1 / 3])
    # the B beats the first A and ties with the second: 1.5 of 2 pairs, 1 of 2 pairs
    assert macro["auroc"] == pytest.approx([0.75, 0.5])
    # B: precision 1/2 at the tie, 1/3; A, by p(A): 0.8 first, then one A among two: 1/2 + 1/2 x 2/3, then 2/3
    assert macro["aupr"] == pytest.approx([(1 / 2 + 5 / 6) / 2, (1 / 3 + 2 / 3) / 2])
    assert legacy["auroc"] == pytest.approx(macro["auroc"])
    assert legacy["sensitivity"] == pytest.approx([1, 1])
    assert legacy["specificity"][0] == pytest.approx(1 / 2)
    assert legacy["specificity"][1] == 0
    logs = -np.log([0.8, 0.4, 0.6])
    assert macro["log_loss"] == pytest.approx([logs.mean(), (2 * logs[1] + logs[2]) / 3])
    # confidences 0.8 (right), 0.6 (wrong), 0.6 (right): bins of 0.8 and of 0.6
    assert macro["ece"] == pytest.approx([(0.2 + abs(-0.6 + 0.4)) / 3, abs(2 * -0.6 + 0.4) / 3])


def test_a_resample_without_a_class_has_no_ranking_and_no_interval_comes_of_mostly_such() -> None:
    labels = np.array([0, 0, 1])
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    weights = np.array([[1.0, 1, 1], [2, 1, 0], [0, 0, 3]])
    drawn = bootstrap.scores(labels, p, weights)
    assert drawn["macro"]["auroc"][0] == 1.0
    for name in ("auroc", "aupr"):
        assert np.isnan(drawn["macro"][name]).tolist() == [False, True, True]
    spans = bootstrap.intervals(drawn)
    assert spans["macro"]["auroc"] is None
    assert spans["macro"]["accuracy"] == pytest.approx([1, 1])


def test_a_certain_and_wrong_prediction_costs_the_most_that_a_log_loss_may_be() -> None:
    drawn = bootstrap.scores(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]), np.ones((1, 2)))
    assert drawn["macro"]["log_loss"][0] == pytest.approx(-np.log(1e-12) / 2)


def test_many_resamples_are_scored_in_pieces_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, p = predictions(30)
    weights = bootstrap.resample(np.arange(30), 23, 0)
    whole = bootstrap.scores(labels, p, weights)
    monkeypatch.setattr(bootstrap, "_CHUNK", 5 * 30)
    pieces = bootstrap.scores(labels, p, weights)
    for kind, group in whole.items():
        assert list(group) == list(metrics.LEGACY if kind == "legacy" else metrics.MACRO)
        for name, values in group.items():
            np.testing.assert_allclose(values, pieces[kind][name], err_msg=name)
    monkeypatch.setattr(bootstrap, "_CHUNK", 1)
    assert len(bootstrap.scores(labels, p, weights)["macro"]["accuracy"]) == 23


def test_an_interval_is_from_2_5_to_97_5_percent_of_the_resamples() -> None:
    assert bootstrap.interval(np.arange(1001.0)) == pytest.approx([25, 975])
    half = np.array([np.nan, np.nan, 1.0, 1.0])
    assert bootstrap.interval(half) == [1.0, 1.0]
    assert bootstrap.interval(half[:3]) is None
    assert bootstrap.interval(np.array([])) is None


def test_a_difference_that_touches_zero_is_not_real() -> None:
    ones = np.ones(100)
    assert bootstrap.paired_difference(3 * ones, ones) == {"ci95": [2.0, 2.0], "real": True}
    assert bootstrap.paired_difference(ones, 3 * ones) == {"ci95": [-2.0, -2.0], "real": True}
    assert bootstrap.paired_difference(1.25 * ones, ones)["real"]
    assert bootstrap.paired_difference(ones, 1.25 * ones)["real"]
    assert bootstrap.paired_difference(ones, ones) == {"ci95": [0.0, 0.0], "real": False}
    assert bootstrap.paired_difference(ones * np.nan, ones) == {"ci95": None, "real": False}


def test_weights_need_not_be_whole_numbers_and_a_resample_without_a_class_is_no_warning() -> None:
    labels, p = predictions(40)
    weights = np.random.default_rng(0).random((4, 40)) / 50
    weights[1, np.argsort(-p[:, 1])[:5]] = 0  # the surest ones have no weight
    weights[2, labels == 1] = 0
    weights[3, labels != 1] = 0
    with np.errstate(divide="raise", invalid="raise"):
        area, average = bootstrap.weighted_ranking(labels == 1, p[:, 1], weights)
    for r in (0, 1):
        assert area[r] == pytest.approx(sk.roc_auc_score(labels == 1, p[:, 1], sample_weight=weights[r]))
        assert average[r] == pytest.approx(
            sk.average_precision_score(labels == 1, p[:, 1], sample_weight=weights[r])
        )
    assert np.isnan([area[2:], average[2:]]).all()


def test_a_ranking_that_negatives_lead_is_scored_as_by_scikit_learn() -> None:
    draw = np.random.default_rng(3)
    truth, score = draw.random(100) < 0.2, np.round(draw.random(100), 2)
    score[~truth] += 0.05
    weights = draw.poisson(1, (5, 100)).astype(np.uint8)
    assert score[~truth].max() > score[truth].max()
    for r, found in enumerate(zip(*bootstrap.weighted_ranking(truth, score, weights), strict=True)):
        asked = [
            of(truth, score, sample_weight=weights[r])
            for of in (sk.roc_auc_score, sk.average_precision_score)
        ]
        assert found == pytest.approx(asked)


def test_a_class_that_no_image_has_is_without_a_ranking() -> None:
    """As where a part was cut from a larger set."""
    none = np.zeros(4, bool)
    found = bootstrap.weighted_ranking(none, np.arange(4.0), np.ones((2, 4), np.uint8))
    assert np.isnan(found).all()
    assert np.shape(found) == (2, 2)


def slow_scores(labels: np.ndarray, p: np.ndarray, weights: np.ndarray) -> bootstrap.ResampledScores:
    """The same the long way: every distinct score of every class, every resample in floats."""
    weights, classes = weights.astype(float), p.shape[1]
    cells = np.eye(classes**2)[labels * classes + p.argmax(1)]
    confusion = (weights @ cells).reshape(-1, classes, classes)
    ranked = []
    for c in range(classes):
        positive, negative = slow_counts(labels == c, p[:, c], weights)
        new_positive, new_negative = np.diff(positive, prepend=0), np.diff(negative, prepend=0)
        precision = positive / np.maximum(positive + negative, 1)
        total, others = positive[:, -1], negative[:, -1]
        with np.errstate(invalid="ignore"):
            area = (new_negative * (positive - new_positive / 2)).sum(1) / (total * others)
            average = (new_positive * precision).sum(1) / total
        ranked.append((area, np.where(others == 0, np.nan, average)))
    auroc, aupr = np.mean(ranked, axis=0)
    curves = {"auroc": auroc, "aupr": aupr}
    true = np.clip(p, 1e-12, None)[np.arange(len(labels)), labels]
    extra = {
        "log_loss": weights @ -np.log(true) / weights.sum(1),
        "ece": np.abs(weights @ metrics.calibration_gaps(labels, p)).sum(1) / weights.sum(1),
    }
    return {
        "legacy": metrics.legacy_scores(confusion) | curves,
        "macro": metrics.macro_scores(confusion) | curves | extra,
    }


@pytest.mark.parametrize(("n", "classes", "units"), [(60, 2, 60), (300, 7, 50), (900, 12, 200), (40, 9, 12)])
def test_scores_are_those_of_the_long_way_also_where_they_are_not_defined(
    n: int, classes: int, units: int
) -> None:
    """Those of counts alone to the last bit; sums of fractions to the order in which they are added."""
    labels, p = predictions(n, classes)
    weights = bootstrap.resample(np.arange(n) % units, 60, 0)
    slow, quick = slow_scores(labels, p, weights), bootstrap.scores(labels, p, weights)
    for kind, group in slow.items():
        for name, values in group.items():
            exact = name not in ("aupr", "log_loss", "ece")
            np.testing.assert_allclose(quick[kind][name], values, rtol=0 if exact else 1e-13, err_msg=name)


def test_memory_grows_with_the_weights_of_a_chunk_not_with_all_resamples_or_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """30 classes, 8,000 images, 500 resamples: 32 MB as floats, and 58 MB as a table of cells, are never made."""
    labels, p = predictions(8000, 30)
    weights = bootstrap.resample(np.arange(8000), 500, 0)
    monkeypatch.setattr(bootstrap, "_CHUNK", 20 * 8000)
    tracemalloc.start()
    try:
        bootstrap.scores(labels, p, weights)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_progress_counts_each_resample_once_whatever_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, p = predictions(50)
    weights = bootstrap.resample(np.arange(50), 23, 0)
    monkeypatch.setattr(bootstrap, "_CHUNK", 5 * 50)
    told: list[tuple[int, int]] = []
    bootstrap.scores(labels, p, weights, lambda *both: told.append(both))
    assert told == [(5, 23), (10, 23), (15, 23), (20, 23), (23, 23)]
    told.clear()
    bootstrap.scores_over_seeds(
        labels, np.stack([p, p[::-1]]), weights, on_progress=lambda *both: told.append(both)
    )
    assert told == sorted(told)
    assert (told[-1], {total for _, total in told}, len(told) == len(set(told))) == ((23, 23), {23}, True)


def test_some_resamples_are_scored_as_among_all() -> None:
    labels, p = predictions(50)
    weights, some = bootstrap.resample(np.arange(50), 20, 0), np.array([3, 4, 17])
    all_of_them = bootstrap.scores(labels, p, weights)["macro"]["aupr"]
    assert (
        bootstrap.scores(labels, p, weights, None, some)["macro"]["aupr"].tolist()
        == all_of_them[some].tolist()
    )
