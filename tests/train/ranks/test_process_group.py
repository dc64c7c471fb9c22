"""What joining sets in the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from retfound_dist.train.ranks import process_group
from retfound_dist.train.ranks.process_group import collective_timeout
from tests import ROOT

JOIN = """
import os, sys
from datetime import timedelta
from retfound_dist.runtime.world import World, read_world
from retfound_dist.train.ranks.process_group import join_ranks, leave_ranks, set_group_timeouts
import torch, torch.distributed as dist
group = join_ranks(World(), threads=1)
print(dist.get_backend(), dist.get_world_size(), group.device, torch.get_num_threads(), os.environ["MASTER_ADDR"],
      os.environ["RANK"], "deepspeed" in sys.modules)
join_ranks(World(), threads=1)
later = dist.new_group(ranks=[0])
set_group_timeouts(timedelta(seconds=7))
print(*(group._get_backend(torch.device("cpu")).options._timeout for group in (dist.group.WORLD, later)))
leave_ranks()
print(dist.is_initialized())
leave_ranks()
"""


def joined(**environment: str) -> list[str]:
    clean = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("MASTER_", "RANK", "WORLD", "LOCAL", "SLURM"))
    }
    done = subprocess.run(
        [sys.executable, "-c", JOIN],
        capture_output=True,
        text=True,
        env=clean | environment,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_one_rank_joins_by_itself_without_deepspeed_and_leaves() -> None:
    assert joined(RANK="") == [
        "gloo",
        "1",
        "cpu",
        "1",
        "127.0.0.1",
        "0",
        "False",
        "0:00:07",
        "0:00:07",
        "False",
    ]


def test_a_collective_waits_longer_than_the_watchdog() -> None:
    assert collective_timeout(hang_minutes=60, patience_s=1800) == timedelta(minutes=95)
    # Before the first step a store may be slow, however short a step is.
    assert collective_timeout(hang_minutes=1, patience_s=30) == timedelta(minutes=30)
    assert collective_timeout(hang_minutes=0, patience_s=30) > timedelta(days=300)


def test_ranks_of_slurm_meet_at_the_first_host_of_their_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$3" = "node[7-8]" ] && printf "node7\\nnode8\\n"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_STEP_NODELIST", "node[7-8]")
    monkeypatch.setenv("SLURM_JOB_ID", "47110")
    monkeypatch.setenv("MASTER_ADDR", " ")
    monkeypatch.setenv("MASTER_PORT", "")
    process_group._set_address_from_slurm()
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("node7", "27110")
    monkeypatch.setenv("MASTER_PORT", "1234")
    process_group._set_address_from_slurm()
    assert os.environ["MASTER_PORT"] == "1234"
