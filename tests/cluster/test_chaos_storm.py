"""A few minutes of bad luck: a storm of benchmarks/chaos.py that fits into a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

from benchmarks.chaos_faults import episodes
from tests import ROOT
from tests.cluster.real_parts import need, need_root

SEED, EPISODES = 1, 5


def test_in_a_small_storm_nothing_is_lost_wrong_or_untold(tmp_path: Path) -> None:
    need("rclone", "unshare")
    need_root()
    words = ["--seed", SEED, "--only", "pack", "--episodes", EPISODES, "--results", tmp_path]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", *map(str, words)],
        cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    drawn = [str(episode) for episode in islice(episodes(SEED, ["pack"]), EPISODES)]
    shown = [line.partition(": left with")[0] for line in done.stdout.splitlines()]
    assert [line for line in shown if line in drawn] == drawn
    record = json.loads(next(tmp_path.glob("chaos-*.json")).read_text())
    assert record["ratios"] == {"lost": 0, "wrong": 0, "untold": 0}
    assert record["rows"][0]["value"] == EPISODES
