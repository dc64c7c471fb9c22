"""Both engines have what the trainer needs."""

from __future__ import annotations

import inspect

import pytest

from retfound_dist.train.engine.deepspeed_engine import DeepSpeedEngine
from retfound_dist.train.engine.single_rank_engine import SingleRankEngine
from retfound_dist.train.engine.training_engine import TrainingEngine

METHODS = [
    name for name, value in vars(TrainingEngine).items() if inspect.isfunction(value) and name != "__init__"
]


@pytest.mark.parametrize("engine", [DeepSpeedEngine, SingleRankEngine])
@pytest.mark.parametrize("name", [name for name in METHODS if not name.startswith("_") or name == "__call__"])
def test_an_engine_has_each_method_with_its_parameters(engine: type, name: str) -> None:
    assert inspect.signature(getattr(engine, name)) == inspect.signature(getattr(TrainingEngine, name))
