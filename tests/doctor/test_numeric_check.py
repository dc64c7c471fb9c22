"""The device's numbers against those of a CPU in fp32."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from retfound_dist.doctor import numeric_check
from retfound_dist.doctor.numeric_check import StepNumbers, compare_numbers, numeric_checks
from retfound_dist.model.compilation import GRAPHS
from retfound_dist.model.mae import MaskedAutoencoder
from tests.doctor.checkups import small_checkup


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_right_device_passes(precision: str, tmp_path: Path) -> None:
    numbers, waits, graph = numeric_checks(small_checkup(tmp_path, f"train.precision={precision}"))
    assert (numbers.name, numbers.status) == ("numerics", "ok"), numbers.text
    assert (waits.status, graph.status) == ("skipped", "skipped")


def test_a_device_with_one_wrong_weight_in_a_hundred_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = numeric_check.model_on_device

    def wrong(model: MaskedAutoencoder, checkup: object) -> MaskedAutoencoder:
        model = right(model, checkup)  # type: ignore[arg-type]
        weight = model.blocks[0].mlp.fc1.weight.data
        weight.view(-1)[::100] += 1.0
        return model

    monkeypatch.setattr(numeric_check, "model_on_device", wrong)
    numbers, *_ = numeric_checks(small_checkup(tmp_path))
    assert numbers.status == "failed"
    assert "do not train on this device" in numbers.what_to_do


RIGHT = StepNumbers(1.0, torch.ones(100))


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (RIGHT, "ok"),
        (StepNumbers(1.004, 1.01 * torch.ones(100)), "ok"),
        (StepNumbers(1.006, torch.ones(100)), "failed"),
        (StepNumbers(1.0, 1.03 * torch.ones(100)), "failed"),
        # The same norm in another direction.
        (StepNumbers(1.0, torch.cat([torch.ones(95), -torch.ones(5)])), "failed"),
        (StepNumbers(math.nan, torch.ones(100)), "failed"),
        (StepNumbers(1.0, torch.full((100,), math.nan)), "failed"),
    ],
)
def test_the_bounds_are_those_of_bf16(found: StepNumbers, status: str) -> None:
    assert compare_numbers(found, RIGHT, "bf16").status == status


def test_a_compiled_step_is_a_graph_for_each_part(tmp_path: Path) -> None:
    *_, graph = numeric_checks(small_checkup(tmp_path, "train.compile=true", "train.precision=fp32"))
    assert (graph.name, graph.status, graph.value) == ("graph", "ok", GRAPHS), graph.text
