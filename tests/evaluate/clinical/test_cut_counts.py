"""Counts at thresholds equal those of scikit-learn, in every resample of patients and seeds."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_curve

from retfound_dist.config.schema import Clinical
from retfound_dist.evaluate.clinical.cut_counts import Cuts, count, count_resamples
from retfound_dist.evaluate.clinical.questions import list_questions
from retfound_dist.evaluate.scores import bootstrap
from tests.evaluate.clinical.drawn import drawn_predictions, scored, scored_by

THRESHOLDS = np.array([0.1, 0.33, 0.5, 0.97])


def cuts(classes: tuple[str, ...], positive: tuple[str, ...] = ()) -> list[Cuts]:
    """Every question, counted at the thresholds and read at two levels."""
    questions = list_questions(Clinical(positive=positive), classes)
    return [Cuts(question, THRESHOLDS, (0.9, 0.5), (0.8,)) for question in questions]


@pytest.mark.parametrize("positive", [(), ("A", "C")])
def test_counts_and_roc_readings_are_those_of_scikit_learn(positive: tuple[str, ...]) -> None:
    labels_N, p_SNC = drawn_predictions(120, 4, seeds=3)
    images = scored(labels_N, p_SNC, resamples=40, temperature=1.7)
    asked = cuts(images.classes, positive)
    once, resampled = count(images, asked), count_resamples(images, asked)
    draws = {int(r): draw for draw, rows in bootstrap.distinct_seed_draws(3, 40) for r in rows}
    for cut, one, many in zip(asked, once, resampled, strict=True):
        truth_N = cut.question.truth(labels_N)
        cases = [(one, 0, np.ones(120), images.calibrated_NM)]
        for r in (0, 7, 39):
            drawn_NM = images.at_temperature(images.combine(p_SNC[draws[r]]))
            cases.append((many, r, images.weights_RN[r], drawn_NM))
        for counts, r, weights_N, p_NM in cases:
            score_N = cut.question.score(p_NM)
            for row, threshold in enumerate(THRESHOLDS):
                table = confusion_matrix(truth_N, score_N >= threshold, sample_weight=weights_N)
                assert [counts.false_TR[row, r], counts.true_TR[row, r]] == table[:, 1].tolist()
                assert [counts.negatives_R[r], counts.positives_R[r]] == table.sum(1).tolist()
            false_T, true_T, _ = roc_curve(truth_N, score_N, sample_weight=weights_N, drop_intermediate=False)
            for row, level in enumerate((0.9, 0.5)):
                best = true_T[1 - false_T >= level - 1e-9].max()
                assert counts.roc_sensitivity_LR[row, r] == pytest.approx(best)
            best = (1 - false_T)[true_T >= 0.8 - 1e-9].max()
            assert counts.roc_specificity_LR[0, r] == pytest.approx(best)


def test_an_image_at_the_threshold_is_positive() -> None:
    images = scored_by([0.5, 0.33, 0.97, 0.1], [1, 0, 1, 0])
    counts = count(images, cuts(images.classes)[1:])[0]
    assert counts.true_TR[:, 0].tolist() == [2, 2, 2, 1]
    assert counts.false_TR[:, 0].tolist() == [2, 1, 0, 0]


def test_without_positives_rates_are_not_defined_and_nothing_is_raised() -> None:
    images = scored_by([0.5, 0.3, 0.9], [0, 0, 0])
    counts = count_resamples(images, cuts(images.classes)[1:])[0]
    assert np.isnan(counts.roc_sensitivity_LR).all()
    assert np.isnan(counts.roc_specificity_LR).all()
    assert not counts.true_TR.any()


def test_progress_ends_at_the_number_of_resamples() -> None:
    images, seen = scored(*drawn_predictions(30, 3, seeds=2)), list[tuple[int, int]]()
    count_resamples(images, cuts(images.classes), lambda done, total: seen.append((done, total)))
    assert seen[-1] == (60, 60)
