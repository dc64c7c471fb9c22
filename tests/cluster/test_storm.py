"""A run on S3 that is killed by kill -9 at nine random moments (benchmarks/storm.py)."""

from __future__ import annotations

import random

import pytest

from benchmarks.storm import Storm, storm
from benchmarks.storm_processes import PHASES

KILLS = 9
"""Three in each phase. `make bench-storm` kills thirty times."""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Storm:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    return storm(tmp_path_factory.mktemp("storm"), KILLS, seed)


def test_a_run_killed_again_and_again_is_the_same_run_and_leaves_nothing_behind(result: Storm) -> None:
    assert result.broken == []
    assert len(result.processes) == KILLS + 1


def test_the_kills_came_in_starts_in_steps_and_in_saves(result: Storm) -> None:
    assert all(result.kills(phase) == KILLS // len(PHASES) for phase in PHASES)
    assert sum(training.was_saving for training in result.processes) >= 2
    assert sum(training.resumed_step() != "" for training in result.processes) >= KILLS // 3


def test_the_time_is_accounted_for(result: Storm) -> None:
    split = result.split
    parts = split.useful_s, split.redo_s, split.load_s, split.restart_s, split.down_s, split.rest_s
    assert all(part >= 0 for part in parts)
    assert sum(parts) == pytest.approx(split.wall_s)
    assert split.useful_s > 0
