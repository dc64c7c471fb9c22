"""The trial's length, its processes, and what a failed process says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retfound_dist.doctor.trial_run import (
    FEWEST_STEPS,
    MORE_STEPS,
    STEPS,
    TrialSize,
    process_environment,
    run_trial,
    trial_command,
    trial_size,
)
from retfound_dist.estimate.model_shapes import training_flops
from retfound_dist.runtime.world import read_world
from tests.doctor.checkups import small_checkup


def test_a_fast_device_takes_the_whole_batch(tmp_path: Path) -> None:
    checkup = small_checkup(tmp_path, minutes=5)
    assert trial_size(checkup, 1e14) == TrialSize(STEPS, 10, 4, is_whole_batch=True)


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_a_slow_device_takes_a_smaller_batch_and_then_fewer_steps(ranks: int, tmp_path: Path) -> None:
    checkup = small_checkup(tmp_path, minutes=5, size=ranks, local_size=ranks)
    image = training_flops(checkup.config.model)
    slow = trial_size(checkup, image / 10)  # about 33 s an image
    assert (slow.steps, slow.global_batch, slow.micro_batch) == (FEWEST_STEPS, ranks, 1)
    assert not slow.is_whole_batch
    middle = trial_size(checkup, image * 2)  # 1.7 s an image, 90 s for 24 steps
    assert middle.global_batch == 2 * ranks
    assert middle.steps == STEPS


def test_the_processes_are_the_run_s_with_a_meeting_place_of_their_own(tmp_path: Path) -> None:
    checkup = small_checkup(tmp_path, rank=3, size=4, local_rank=1, local_size=2)
    environment = process_environment(checkup, 12345)
    world = read_world(environment)
    assert (world.rank, world.size, world.local_rank, world.local_size) == (3, 4, 1, 2)
    assert environment["MASTER_PORT"] == "12345"
    # All ranks of a host have one folder for a checkpoint, though each has its own parent.
    assert world.owner == "doctor-0000abcd"
    size = TrialSize(5, 8, "auto", is_whole_batch=True)
    first, second = (trial_command(checkup, size, resume) for resume in ("none", "5"))
    assert 'run.resume="none"' in first
    assert "run.resume=5" in second
    assert 'train.micro_batch="auto"' in first
    assert f"train.steps={5 + MORE_STEPS}" in first
    assert first.index("train.global_batch=8") > first.index("train.global_batch=10")


@pytest.mark.slow
def test_a_process_that_fails_is_a_fault_with_its_line(tmp_path: Path) -> None:
    checkup = small_checkup(tmp_path, f"model.init={tmp_path}/none.pth")
    trial = run_trial(checkup, TrialSize(1, 10, 4, is_whole_batch=True))
    assert trial.fault.startswith("rank 0: retfound: ")
    assert "none.pth" in trial.fault
    assert list(trial.rows) == []
    assert os.environ.get("RANK") is None
