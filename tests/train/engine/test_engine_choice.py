"""Which engine a run gets, at which stage, and which version of DeepSpeed it needs."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from torch import nn

from retfound_dist.config.schema import Optim, Train
from retfound_dist.errors import TrainingError
from retfound_dist.stream.batch_plan import make_batch_layout
from retfound_dist.train.engine import engine_choice
from retfound_dist.train.engine.deepspeed_config import TESTED_DEEPSPEED
from retfound_dist.train.engine.deepspeed_engine import DeepSpeedEngine
from retfound_dist.train.engine.engine_choice import check_deepspeed_version, choose_zero_stage, make_engine
from retfound_dist.train.engine.single_rank_engine import SingleRankEngine
from retfound_dist.train.parameter_groups import parameter_groups
from retfound_dist.train.ranks.collectives import RankGroup
from tests import ROOT


def train_of(stage: int, **settings: Any) -> Train:
    return Train(global_batch=8, micro_batch=8, steps=1, zero_stage=stage, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stage", "ranks", "expected"),
    [(0, 1, 2), (1, 1, 2), (2, 1, 2), (3, 1, 3), (0, 2, 1), (1, 2, 1), (2, 2, 2), (3, 2, 3)],
)
def test_stage_0_runs_as_1_and_a_single_rank_below_3_as_2(stage: int, ranks: int, expected: int) -> None:
    assert choose_zero_stage(train_of(stage), ranks) == expected


def test_an_offloaded_state_keeps_its_stage_on_one_rank() -> None:
    assert choose_zero_stage(train_of(1, offload_optimizer=True), 1) == 1


@pytest.mark.parametrize(
    ("stage", "kind"), [(0, SingleRankEngine), (2, SingleRankEngine), (3, DeepSpeedEngine)]
)
def test_one_rank_below_zero_3_needs_no_deepspeed(stage: int, kind: type, alone: RankGroup) -> None:
    net, train, layout = nn.Linear(3, 2).bfloat16(), train_of(stage), make_batch_layout(8, 1, 8)
    engine = make_engine(net, parameter_groups(net, Optim()), train, Optim(), layout)
    assert type(engine) is kind
    assert engine.zero_stage == choose_zero_stage(train, 1)


def test_the_installed_deepspeed_is_the_tested_one() -> None:
    check_deepspeed_version()


def test_another_deepspeed_is_an_error_that_names_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_choice, "version", lambda package: "0.20.0")
    message = f"DeepSpeed 0.20.0 is installed, .* tested with {TESTED_DEEPSPEED} only .* 'deepspeed=={TESTED_DEEPSPEED}'"
    with pytest.raises(TrainingError, match=message):
        check_deepspeed_version()


def test_the_package_requires_the_tested_deepspeed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"deepspeed=={TESTED_DEEPSPEED}" in project["dependencies"]
    constraints = (ROOT / "constraints.txt").read_text()
    assert re.search(rf"^deepspeed=={re.escape(TESTED_DEEPSPEED)}$", constraints, re.MULTILINE)
