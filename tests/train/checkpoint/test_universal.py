"""The converted state holds what every stage wants, from whatever stage wrote it: see also test_restore.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from retfound_dist.errors import CheckpointError
from retfound_dist.train.checkpoint import universal
from retfound_dist.train.engine.training_engine import STATE_FOLDER

SHAPES = {"block.weight": torch.Size([2, 3]), "block.bias": torch.Size([3])}
NAMES = ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt")


def written_by_stage(stage: int, folder: Path) -> None:
    """What DeepSpeed's conversion leaves of a state: stage 3 writes flat tensors, and the step with each."""
    (folder / "zero").mkdir(parents=True)
    torch.save({"param_shapes": [SHAPES], "run_state": {"kept": 1}}, folder / NAMES[stage == 3])
    for number, (name, shape) in enumerate(SHAPES.items()):
        place = folder / "zero" / name
        place.mkdir()
        for kind in ("fp32", "exp_avg", "exp_avg_sq"):
            value = torch.arange(shape.numel(), dtype=torch.float32) + 10 * number
            whole = {"param": value.reshape(shape), "cat_dim": 0}
            torch.save(value if stage == 3 else whole, place / f"{kind}.pt")
        if stage == 3:
            torch.save(torch.tensor(7.0), place / "step.pt")
    groups = [{"weight_decay": 0.05}, {"weight_decay": 0.0}]
    if stage == 3:
        torch.save({"param_groups": groups, "fp32_flat_groups": []}, folder / "zero/optimizer_state.pt")
    else:
        state = {"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": groups}
        held = {"optimizer_state_dict": state, "param_groups": groups, "clip_grad": 0.5}
        torch.save(held, folder / "zero/optimizer_state.pt")


@pytest.mark.parametrize("stage", [1, 3])
def test_each_stage_s_state_becomes_one_that_all_stages_load(stage: int, tmp_path: Path) -> None:
    written_by_stage(stage, tmp_path)
    shapes = universal._complete_names(tmp_path)
    universal._complete_optimizer(tmp_path / "zero")
    universal._complete_parameters(tmp_path / "zero", shapes)
    for name in NAMES:
        assert torch.load(tmp_path / name, weights_only=True)["run_state"] == {"kept": 1}
    for number, (name, shape) in enumerate(SHAPES.items()):
        for kind in ("fp32", "exp_avg", "exp_avg_sq"):
            found = torch.load(tmp_path / "zero" / name / f"{kind}.pt", weights_only=True)
            assert found["cat_dim"] == 0
            expected = torch.arange(shape.numel(), dtype=torch.float32).reshape(shape) + 10 * number
            assert torch.equal(found["param"], expected)
        assert float(torch.load(tmp_path / "zero" / name / "step.pt", weights_only=True)) == 7
    state = torch.load(tmp_path / "zero/optimizer_state.pt", weights_only=True)
    assert float(state["optimizer_state_dict"]["state"][0]["step"]) == 7
    assert [g["weight_decay"] for g in state["optimizer_state_dict"]["param_groups"]] == [0.05, 0.0]
    assert state["ds_version"]


def test_what_cannot_be_converted_is_an_error_with_deepspeed_s_last_line(tmp_path: Path) -> None:
    (tmp_path / STATE_FOLDER).mkdir()
    with pytest.raises(CheckpointError, match=r"could not be converted to this number of ranks: \w+"):
        universal.convert(str(tmp_path))
