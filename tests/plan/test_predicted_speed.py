"""The rate of a GPU, measured or assumed, decides the predicted time."""

import pytest

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.plan.cluster import DEVICES, Cluster
from retfound_dist.plan.data_facts import assumed_data
from retfound_dist.plan.measured_rates import MeasuredRate
from retfound_dist.plan.run_plan import plan_run
from tests import ROOT

OCT = str(ROOT / "configs/pretrain_vitl_oct.toml")


def test_a_rate_that_was_measured_is_used_and_named() -> None:
    config, _ = load(PretrainConfig, OCT)
    data, one = assumed_data(182_980, 5e4, ""), Cluster(1, 1, DEVICES[2])
    known = plan_run(config, data, one, MeasuredRate(3800, "train.json, 'ours'"), 168)
    guessed = plan_run(config, data, one, None, 168)
    assert known.speed.images_per_s == pytest.approx(3800, rel=0.02)
    assert "train.json" in known.speed.source
    assert "datasheet" in guessed.speed.source
    assert "assumed" in guessed.speed.source
    # On one GPU the passes are nearly all of a step, so the time follows the rate.
    assert known.slow_hours is None
    assert guessed.slow_hours == pytest.approx(guessed.hours * 0.35 / 0.11, rel=0.1)
