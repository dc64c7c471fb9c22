"""Net benefit by hand, and where a classifier is better than treating everybody and nobody."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retfound_dist.config.schema import Clinical
from retfound_dist.evaluate.clinical.cut_counts import Cuts, count, count_resamples
from retfound_dist.evaluate.clinical.decision_curves import THRESHOLDS, curve_entry, net_benefit
from retfound_dist.evaluate.clinical.questions import list_questions
from retfound_dist.evaluate.clinical.scored_images import ScoredImages
from tests.evaluate.clinical.drawn import scored_by


def curve(images: ScoredImages) -> dict[str, Any]:
    """The decision curve of class B."""
    (question,) = list_questions(Clinical(positive=("B",)), images.classes)
    cuts = [Cuts(question, np.array(THRESHOLDS))]
    once, many = count(images, cuts)[0], count_resamples(images, cuts)[0]
    counts = [(c.true_TR, c.false_TR, c.positives_R, c.negatives_R) for c in (once, many)]
    return curve_entry(*counts)


def test_net_benefit_of_the_article_s_kind_of_example() -> None:
    """Of 100, 30 are treated and needed it, 20 are treated without need, at a threshold of 20 %."""
    got = net_benefit(np.array([[30.0]]), np.array([[20.0]]), np.array([100.0]), np.array([0.2]))
    assert got[0, 0] == pytest.approx(0.30 - 0.20 * 0.25)


def test_a_curve_equals_its_definition_at_every_threshold() -> None:
    draw = np.random.default_rng(0)
    truth = draw.random(200) < 0.3
    score = np.clip(0.5 * truth + 0.6 * draw.random(200), 0, 1).round(3)
    entry = curve(scored_by(score.tolist(), truth.astype(int).tolist()))
    for t, model, everybody, span in zip(
        entry["thresholds"], entry["model"], entry["treat_all"], entry["ci95"], strict=True
    ):
        called, odds = score >= t, t / (1 - t)
        assert model == pytest.approx((called & truth).mean() - (called & ~truth).mean() * odds, abs=2e-6)
        assert everybody == pytest.approx(truth.mean() - (1 - truth.mean()) * odds, abs=2e-6)
        assert span[0] <= span[1]
    assert entry["treat_none"] == 0


def test_a_good_classifier_is_useful_between_thresholds_and_a_useless_one_nowhere() -> None:
    truth = [0, 1] * 60
    good = curve(scored_by([0.05 + 0.9 * t for t in truth], truth))["useful"]
    assert good == [[0.06, 0.95]]
    assert curve(scored_by([0.5] * 120, truth))["useful"] == []


def test_resamples_without_images_of_the_class_are_no_error() -> None:
    entry = curve(scored_by([0.4, 0.6, 0.7], [0, 0, 0]))
    assert entry["useful"] == []
    assert max(entry["model"]) <= 0
