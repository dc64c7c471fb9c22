"""Packing and appending under kill -9, the short version of benchmarks/pack_storm.py."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.pack_storm import PackStorm, Place, storm
from tests.cluster.real_parts import clean_environment

pytestmark = pytest.mark.slow


def short_storm(folder: Path, kills: int, append: bool) -> PackStorm:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    env = clean_environment({"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"})
    return storm(Place(str(folder / "sets"), env, random.Random(seed)), kills, append, print)


def test_a_pack_killed_at_random_moments_ends_with_the_same_bytes(tmp_path: Path) -> None:
    found = short_storm(tmp_path, 6, append=False)
    assert found.broken == []
    assert found.kills == 6
    assert found.finished >= 1


def test_an_append_killed_at_random_moments_keeps_the_old_set_and_ends_with_the_same_bytes(
    tmp_path: Path,
) -> None:
    found = short_storm(tmp_path, 4, append=True)
    assert found.broken == []
    assert found.kills == 4
    assert found.finished >= 1
