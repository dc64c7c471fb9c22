"""AdamW on one rank of a CPU takes each gradient where it is, and computes what torch's own AdamW does."""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from retfound_dist.config.schema import Optim, Train
from retfound_dist.stream.batch_plan import make_batch_layout
from retfound_dist.train.engine import deepspeed_engine as ds
from retfound_dist.train.engine.single_rank import MOMENTS
from retfound_dist.train.parameter_groups import parameter_groups
from retfound_dist.train.ranks.collectives import RankGroup

LR, PASSES = 0.05, 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))


def batch(number: int) -> Tensor:
    return torch.randn(6, 7, generator=torch.Generator().manual_seed(number))


def build(
    net: nn.Module, optim: Optim, precision: Literal["bf16", "fp32"] = "fp32", passes: int = PASSES
) -> Any:
    """An engine of one rank, whose optimizer `step_in_place` has changed."""
    train = Train(global_batch=6, micro_batch=6 // passes, steps=9, zero_stage=2, precision=precision)
    net.to(torch.bfloat16 if precision == "bf16" else torch.float32)
    engine = ds.build(net, parameter_groups(net, optim), train, optim, make_batch_layout(6, 1, 6 // passes))
    ds.set_lr(engine, LR)
    return engine


def step(engine: Any, images: Tensor, passes: int = PASSES, factor: float = 1.0) -> Tensor:
    """One step in several passes; gives the gradient's norm."""
    norm = None
    for part in images.chunk(passes):
        engine.backward(engine(part).square().mean() * factor)
        norm = ds.step(engine)
    assert norm is not None
    return norm


def masters(engine: Any) -> Tensor:
    parts = engine.optimizer.single_partition_of_fp32_groups
    return torch.cat([part.detach().flatten() for part in parts])


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_steps_in_several_passes_are_those_of_plain_adamw(clip: float, alone: RankGroup) -> None:
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


def test_in_fp32_the_optimizer_s_weights_are_the_model_s_and_no_gradient_stays(alone: RankGroup) -> None:
    net = network()
    engine = build(net, Optim())
    step(engine, batch(0))
    addresses = {p.untyped_storage().data_ptr() for p in net.parameters()}
    master_addresses = {
        p.untyped_storage().data_ptr() for p in engine.optimizer.single_partition_of_fp32_groups
    }
    assert addresses == master_addresses
    assert all(p.grad is None and p.grad_accum is None for p in net.parameters())
    assert set(engine.optimizer.averaged_gradients.values()) == {None}


def test_in_bf16_weights_are_kept_and_gradients_added_up_in_fp32(alone: RankGroup) -> None:
    """Each of eight steps is less than bf16 can add to a weight of 1; fp32 adds them up."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    engine = build(net, Optim(weight_decay=0.0), "bf16", passes=1)
    ds.set_lr(engine, 1e-3)
    seen = []
    for _ in range(8):
        engine.backward(engine(torch.ones(6, 1, dtype=torch.bfloat16)).float().mean())
        ds.step(engine)
        seen.append(float(net.weight.detach()))
    assert seen[0] == 1.0
    assert float(masters(engine)[0]) == pytest.approx(1 - 8e-3, abs=1e-5)
    assert seen[-1] == float(torch.tensor(1 - 8e-3).bfloat16()) < 1


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_moves_nothing_and_is_not_counted(
    factor: float, alone: RankGroup
) -> None:
    net = network()
    engine = build(net, Optim())
    step(engine, batch(0))
    states = engine.optimizer.optimizer.state
    before = masters(engine).clone(), [s[name].clone() for s in states.values() for name in MOMENTS]
    assert not math.isfinite(float(step(engine, batch(1), factor=factor)))
    assert torch.equal(masters(engine), before[0])
    moments = [s[name] for s in states.values() for name in MOMENTS]
    assert all(torch.equal(now, then) for now, then in zip(moments, before[1], strict=True))
    assert [float(s["step"]) for s in states.values()] == [1.0, 1.0]
    step(engine, batch(1))
    assert not torch.equal(masters(engine), before[0])
    assert [float(s["step"]) for s in states.values()] == [2.0, 2.0]
