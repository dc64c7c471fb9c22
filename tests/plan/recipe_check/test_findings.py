"""A risk as a line, and how many epochs a config means."""

import pytest

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.plan.recipe_check.findings import Facts, Finding, epochs
from tests import ROOT


def test_a_line_says_level_setting_reason_source_and_remedy_in_this_order() -> None:
    finding = Finding("warning", "optim.base_lr", "it is high", "It diverges", "MAE", "optim.base_lr=1e-4")
    assert finding.line() == (
        "warning: optim.base_lr: it is high. It diverges (MAE). Instead: optim.base_lr=1e-4"
    )


@pytest.mark.parametrize(
    ("length", "expected"), [(["train.epochs=12.5"], 12.5), (["train.epochs=0", "train.steps=30"], 3.0)]
)
def test_epochs_come_from_the_config_or_from_steps_of_whole_batches(
    length: list[str], expected: float
) -> None:
    overrides = [*length, "train.global_batch=100"]
    config, _ = load(PretrainConfig, str(ROOT / "configs/pretrain_vitl_oct.toml"), overrides)
    assert epochs(config, Facts(samples=1000, shards=1)) == pytest.approx(expected)
