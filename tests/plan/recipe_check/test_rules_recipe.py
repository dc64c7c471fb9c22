"""Rules on how a run learns: rate, warm-up and warm start."""

import pytest

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.plan.recipe_check.recipe_check import check
from retfound_dist.plan.recipe_check.rules_recipe import check_learning_rate, check_warm_up
from tests import ROOT
from tests.plan.recipe_check.recipe_inputs import FACTS, found


def test_a_start_from_random_weights_is_noted_with_the_weights_that_the_paper_began_from() -> None:
    for preset, noted in (("pretrain_vitl_oct", True), ("demo/pretrain", False)):
        config, _ = load(PretrainConfig, str(ROOT / f"configs/{preset}.toml"))
        lines = [f.line() for f in check(config, FACTS) if f.key == "model.init"]
        assert [line.startswith("note: ") for line in lines] == [True] * noted
        assert all("model.init=mae_pretrain_vit_large.pth" in line for line in lines)


def test_the_papers_warm_start_is_no_more_than_noted() -> None:
    assert found("model.init=mae.pth") == {"model.init": "note"}


@pytest.mark.parametrize(("rate", "times"), [("1e-3", "6.7 times"), ("5e-3", "33.3 times")])
def test_both_of_the_groups_rates_are_told_as_base_and_as_absolute_rates(rate: str, times: str) -> None:
    config, _ = load(PretrainConfig, str(ROOT / "configs/pretrain_seed.toml"), [f"optim.base_lr={rate}"])
    line = next(f for f in check(config, FACTS) if f.key == "optim.base_lr").line()
    assert times in line
    assert ("107 times" if rate == "1e-3" else "533 times") in line
    assert "9.4e-06" in line


def test_a_short_warm_start_at_full_rate_is_a_risk() -> None:
    assert found("model.init=mae.pth", "train.epochs=150")["model.init"] == "warning"
    assert found("model.init=mae.pth", "train.epochs=50", "optim.base_lr=1e-3")["model.init"] == "serious"
    assert "model.init" not in found("model.init=mae.pth", "train.epochs=150", "optim.base_lr=3e-5")


@pytest.mark.parametrize("rate", ["1.5e-4", "8e-5", "2.9e-4"])
def test_a_rate_within_a_factor_of_two_is_left_alone(rate: str) -> None:
    config, _ = load(PretrainConfig, str(ROOT / "configs/pretrain_vitl_oct.toml"), [f"optim.base_lr={rate}"])
    assert list(check_learning_rate(config, FACTS)) == []


def test_the_warm_up_that_is_advised_for_a_short_run_is_shorter_than_the_run() -> None:
    config, _ = load(
        PretrainConfig,
        str(ROOT / "configs/pretrain_vitl_oct.toml"),
        ["train.epochs=4", "optim.warmup_epochs=0"],
    )
    (finding,) = check_warm_up(config, FACTS)
    assert 0 < float(finding.remedy.removeprefix("optim.warmup_epochs=")) < 4 / 3
