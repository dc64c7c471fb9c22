"""A run on S3 that is killed by kill -9 at thirty random moments (benchmarks/storm.py)."""

from __future__ import annotations

import random

import pytest

from benchmarks.storm import Storm, storm
from benchmarks.storm_lives import AIMS

KILLS = 30


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Storm:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    return storm(tmp_path_factory.mktemp("storm"), KILLS, seed)


def test_a_run_killed_thirty_times_is_the_same_run_and_leaves_nothing_behind(found: Storm) -> None:
    assert found.broken == []
    assert len(found.lives) == KILLS + 1


def test_the_kills_came_in_starts_in_steps_and_in_saves(found: Storm) -> None:
    assert all(found.kills(aim) == KILLS // len(AIMS) for aim in AIMS)
    assert sum(life.saving for life in found.lives) >= 3
    assert sum(life.resumed() != "" for life in found.lives) >= KILLS // 3


def test_the_time_is_accounted_for(found: Storm) -> None:
    split = found.split
    parts = split.useful_s, split.redo_s, split.load_s, split.restart_s, split.down_s, split.rest_s
    assert all(part >= 0 for part in parts)
    assert sum(parts) == pytest.approx(split.wall_s)
    assert split.useful_s > 0
