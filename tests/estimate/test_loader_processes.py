"""`data.workers="auto"`: what the model needs, and what the rank's cores allow."""

from __future__ import annotations

import pytest

from retfound_dist.config.schema import Model
from retfound_dist.estimate.loader_processes import (
    MOST,
    choose_workers,
    finetuning_workers,
    needed_processes,
)

LARGE, SMALL = Model(), Model(name="vit_small_patch16")


def test_a_large_model_needs_fewer_processes_than_a_small_one() -> None:
    # 124 GFLOP for an image of the ViT-L: 4,850 images/s at 600 TFLOP/s, of which a process gives 900.
    assert needed_processes(LARGE) == 7
    assert needed_processes(LARGE) < needed_processes(SMALL) <= MOST


@pytest.mark.parametrize(("cores", "workers"), [(12.0, 7), (8.0, 7), (6.5, 5), (2.0, 1), (1.0, 1), (0.25, 1)])
def test_a_core_is_left_for_the_rank_and_one_process_always_loads(cores: float, workers: int) -> None:
    assert choose_workers(LARGE, cores, on_gpu=True) == workers


def test_a_step_on_a_cpu_needs_one() -> None:
    assert choose_workers(SMALL, 64.0, on_gpu=False) == 1


@pytest.mark.parametrize(
    ("cores", "on_gpu", "workers"), [(96.0, True, 8), (4.0, True, 3), (1.0, True, 1), (96.0, False, 2)]
)
def test_fine_tuning_takes_what_there_is_up_to_eight(cores: float, on_gpu: bool, workers: int) -> None:
    assert finetuning_workers(cores, on_gpu=on_gpu) == workers
