"""The engine of one rank computes what torch's own AdamW does, and its state goes on where it was saved."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from retfound_dist.config.schema import Optim, Train
from retfound_dist.errors import CheckpointError
from retfound_dist.stream.batch_plan import make_batch_layout
from retfound_dist.train.engine import single_rank_engine
from retfound_dist.train.engine.single_rank_engine import SingleRankEngine
from retfound_dist.train.engine.state_layout import Progress
from retfound_dist.train.engine.training_engine import RUN_STATE, STATE_FOLDER
from retfound_dist.train.parameter_groups import parameter_groups

LR, PASSES = 0.05, 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))


def batch(number: int) -> Tensor:
    return torch.randn(6, 7, generator=torch.Generator().manual_seed(number))


def build(
    net: nn.Module, optim: Optim, precision: Literal["bf16", "fp32"] = "fp32", passes: int = PASSES
) -> SingleRankEngine:
    train = Train(global_batch=6, micro_batch=6 // passes, steps=9, zero_stage=2, precision=precision)
    if precision == "bf16":
        net.bfloat16()
    layout = make_batch_layout(6, 1, 6 // passes)
    engine = SingleRankEngine(net, parameter_groups(net, optim), train, optim, layout)
    engine.set_lr(LR)
    return engine


def step(engine: SingleRankEngine, images: Tensor, passes: int = PASSES, factor: float = 1.0) -> Tensor:
    """One step in several passes; gives the gradient's norm."""
    norm = None
    for part in images.chunk(passes):
        engine.backward(
            engine.module(part.to(next(engine.module.parameters()).dtype)).square().mean() * factor
        )
        norm = engine.end_pass()
    assert norm is not None
    return norm


def fp32_weights(engine: SingleRankEngine) -> Tensor:
    return torch.cat([weight.detach().flatten() for group in engine.groups for weight in group.weights])


def moments(engine: SingleRankEngine) -> list[Tensor]:
    return [moment.clone() for group in engine.groups for moment in (*group.exp_avgs, *group.exp_avg_sqs)]


def steps(engine: SingleRankEngine) -> set[float]:
    return {float(step) for group in engine.groups for step in group.steps}


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_steps_in_several_passes_are_those_of_plain_adamw(clip: float) -> None:
    net = network()
    plain, optim = copy.deepcopy(net), Optim(clip_grad=clip)
    engine = build(net, optim)
    adamw = torch.optim.AdamW(parameter_groups(plain, optim), lr=LR, betas=optim.betas, eps=optim.eps)
    for number in range(4):
        adamw.zero_grad()
        plain(batch(number)).square().mean().backward()
        expected = nn.utils.get_total_norm([p.grad for p in plain.parameters() if p.grad is not None])
        if clip:
            assert expected > 2 * clip
            nn.utils.clip_grad_norm_(plain.parameters(), clip)
        adamw.step()
        assert float(step(engine, batch(number))) == pytest.approx(float(expected), rel=1e-5)
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_in_fp32_the_optimizer_s_weights_are_the_model_s_and_no_gradient_stays() -> None:
    net = network()
    engine = build(net, Optim())
    step(engine, batch(0))
    addresses = {p.data_ptr() for p in net.parameters()}
    assert addresses == {weight.data_ptr() for group in engine.groups for weight in group.weights}
    assert all(p.grad is None for p in net.parameters())


def test_in_bf16_weights_are_kept_and_gradients_added_up_in_fp32() -> None:
    """Each of eight steps is less than bf16 can add to a weight of 1; fp32 adds them up."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    engine = build(net, Optim(weight_decay=0.0), "bf16", passes=1)
    engine.set_lr(1e-3)
    seen = []
    for _ in range(8):
        engine.backward(engine.module(torch.ones(6, 1, dtype=torch.bfloat16)).float().mean())
        engine.end_pass()
        seen.append(float(net.weight.detach()))
    assert seen[0] == 1.0
    assert float(fp32_weights(engine)[0]) == pytest.approx(1 - 8e-3, abs=1e-5)
    assert seen[-1] == float(torch.tensor(1 - 8e-3).bfloat16()) < 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_moves_nothing_and_is_not_counted(
    factor: float, precision: Literal["bf16", "fp32"]
) -> None:
    engine = build(network(), Optim(), precision)
    step(engine, batch(0))
    before, moments_before = fp32_weights(engine).clone(), moments(engine)
    assert not math.isfinite(float(step(engine, batch(1), factor=factor)))
    assert torch.equal(fp32_weights(engine), before)
    assert all(torch.equal(*pair) for pair in zip(moments(engine), moments_before, strict=True))
    assert steps(engine) == {1.0}
    step(engine, batch(1))
    assert not torch.equal(fp32_weights(engine), before)
    assert steps(engine) == {2.0}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_size_of_a_block_changes_no_bit(
    precision: Literal["bf16", "fp32"], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    for block in (1, 40, 1 << 24):
        monkeypatch.setattr(single_rank_engine, "BLOCK", block)
        engine = build(network(), Optim(clip_grad=0.01), precision)
        for number in range(3):
            step(engine, batch(number))
        weights.append(fp32_weights(engine))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_a_parameter_without_a_gradient_decays_and_counts_the_step() -> None:
    net = nn.ModuleDict({"used": nn.Linear(7, 5), "unused": nn.Linear(3, 3)})
    used, unused = net["used"], net["unused"].weight.detach().clone()
    engine = build(net, Optim(weight_decay=0.5), passes=1)
    engine.backward(used(batch(0)).square().mean())
    engine.end_pass()
    torch.testing.assert_close(net["unused"].weight, unused * (1 - LR * 0.5))
    assert steps(engine) == {1.0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_update_on_a_gpu_stays_there_and_never_waits_for_it(dtype: torch.dtype) -> None:
    """No GPU is needed: tensors of FakeTensorMode hold no values, and to ask one for its value is an error."""
    with FakeTensorMode():
        net = nn.Linear(7, 3, device="cuda", dtype=dtype)
        engine = build(net, Optim(clip_grad=0.1), passes=1)
        for parameter in net.parameters():
            parameter.grad = torch.randn_like(parameter)
        norm = engine.end_pass()
        assert norm is not None
        assert {tensor.device.type for tensor in (norm, *moments(engine))} == {"cuda"}
        with pytest.raises(DataDependentOutputException):
            norm.item()


def saved(engine: Any, folder: Path, **client_state: Any) -> None:
    """The engine's state, written as a save writes it."""
    added = {"universal_checkpoint_info": {}, RUN_STATE: {"kept": 7}}
    for path, value in engine.snapshot(str(folder), {**added, **client_state}).items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(value, path)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_loaded_state_goes_on_as_if_nothing_had_happened(
    precision: Literal["bf16", "fp32"], tmp_path: Path
) -> None:
    whole = build(network(), Optim(clip_grad=0.01), precision)
    for number in range(2):
        step(whole, batch(number))
    saved(whole, tmp_path)
    torch.manual_seed(5)
    resumed = build(
        nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3)), Optim(clip_grad=0.01), precision
    )
    assert resumed.load(str(tmp_path), STATE_FOLDER) == {"kept": 7}
    for number in range(2, 4):
        assert torch.equal(step(whole, batch(number)), step(resumed, batch(number)))
    assert torch.equal(fp32_weights(whole), fp32_weights(resumed))
    assert all(torch.equal(*pair) for pair in zip(moments(whole), moments(resumed), strict=True))
    assert all(
        torch.equal(*pair)
        for pair in zip(whole.module.parameters(), resumed.module.parameters(), strict=True)
    )
    assert (steps(resumed), resumed.progress) == ({4.0}, whole.progress)
    assert resumed.progress == Progress(steps=4, samples=24)


def test_a_state_of_another_model_is_an_error_that_names_the_parameter(tmp_path: Path) -> None:
    saved(build(network(), Optim()), tmp_path)
    other = build(nn.ModuleDict({"other": nn.Linear(7, 5)}), Optim())
    with pytest.raises(CheckpointError, match=r"cannot be loaded \(KeyError: 'other.weight'\): use another"):
        other.load(str(tmp_path), STATE_FOLDER)
