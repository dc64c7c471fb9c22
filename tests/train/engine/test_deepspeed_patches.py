"""Each change of DeepSpeed is still needed, does what it says, and ends with its block.

A test that fails because DeepSpeed, unchanged, behaves well now says: delete the patch that it names.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext, suppress
from typing import Any, Literal

import pytest
import torch
from torch import nn

from retfound_dist.config.schema import Optim, Train
from retfound_dist.stream.batch_plan import make_batch_layout
from retfound_dist.train.engine import deepspeed_patches
from retfound_dist.train.engine.deepspeed_engine import DeepSpeedEngine
from retfound_dist.train.parameter_groups import parameter_groups
from retfound_dist.train.ranks.collectives import RankGroup
from tests.train.waits import Waits


def engine_at(stage: int, precision: Literal["bf16", "fp32"], clip: float = 0.1) -> DeepSpeedEngine:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))
    net.to(torch.bfloat16 if precision == "bf16" else torch.float32)
    optim = Optim(clip_grad=clip)
    train = Train(global_batch=4, micro_batch=4, steps=9, precision=precision)
    layout = make_batch_layout(4, 1, 4)
    engine = DeepSpeedEngine(net, parameter_groups(net, optim), train, optim, layout, stage)
    engine.set_lr(0.01)
    return engine


def step(engine: DeepSpeedEngine, factor: float = 1.0) -> torch.Tensor:
    dtype = next(engine.module.parameters()).dtype
    images = torch.randn(4, 7, generator=torch.Generator().manual_seed(1)).to(dtype)
    engine.backward(engine.deepspeed(images).float().square().mean() * factor)
    norm = engine.end_pass()
    assert norm is not None
    return norm


@pytest.mark.parametrize(("stage", "precision"), [(1, "bf16"), (2, "bf16"), (2, "fp32"), (3, "bf16")])
def test_unchanged_deepspeed_waits_for_the_device_in_a_step(
    stage: int, precision: Any, alone: RankGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`checks_on_device` is needed as long as this passes."""
    counts = {}
    for name in ("patched", "unchanged"):
        if name == "unchanged":
            monkeypatch.setattr(deepspeed_patches, "checks_on_device", nullcontext)
            monkeypatch.setattr(deepspeed_patches, "skip_bad_steps", lambda *_: None)
        engine = engine_at(stage, precision)
        for _ in range(4):  # stage 3 first learns in which order the layers run
            step(engine)
        with Waits() as waits:
            step(engine)
        counts[name] = waits.count
    assert counts["unchanged"] > counts["patched"], "DeepSpeed no longer waits: delete checks_on_device"
    assert counts["patched"] <= (2 if stage == 3 else 0)  # of its own, stage 3 marks each group's norm


@pytest.mark.parametrize(("stage", "precision"), [(1, "bf16"), (2, "fp32"), (3, "bf16")])
def test_the_patched_step_moves_what_the_unchanged_one_moves(
    stage: int, precision: Any, alone: RankGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    for name in ("patched", "unchanged"):
        if name == "unchanged":
            monkeypatch.setattr(deepspeed_patches, "checks_on_device", nullcontext)
            monkeypatch.setattr(deepspeed_patches, "skip_bad_steps", lambda *_: None)
        engine = engine_at(stage, precision)
        norms = [float(step(engine)) for _ in range(3)]
        moments = [state["exp_avg"].clone() for state in engine.adamw.state.values()]
        states.append((norms, moments))
    assert states[0][0] == pytest.approx(states[1][0], rel=1e-6)
    for ours, theirs in zip(states[0][1], states[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_gradient_that_is_not_finite_moves_nothing(stage: int, alone: RankGroup) -> None:
    engine = engine_at(stage, "bf16")
    step(engine)
    before = [{k: v.clone() for k, v in state.items()} for state in engine.adamw.state.values()]
    assert not torch.isfinite(step(engine, float("nan")))
    for state, old in zip(engine.adamw.state.values(), before, strict=True):
        assert all(torch.equal(value, old[key]) for key, value in state.items())


def changed_names() -> dict[str, Any]:
    """What `checks_on_device` replaces, as it is now."""
    from deepspeed.runtime import bf16_optimizer, utils
    from deepspeed.runtime.zero import stage3, stage_1_and_2

    modules = (bf16_optimizer, utils, stage3, stage_1_and_2)
    names = ("is_invalid_grad_norm", "mask_nan_or_inf_with_val_inplace", "clip_tensors_by_global_norm")
    return {f"{m.__name__}.{n}": getattr(m, n) for m in modules for n in names if hasattr(m, n)}


def test_no_change_outlasts_the_step(alone: RankGroup) -> None:
    import deepspeed
    from deepspeed.runtime import compiler

    before, compile_ = changed_names(), compiler.compile
    operators = dict(deepspeed.ops.__compatible_ops__)
    step(engine_at(2, "fp32"))
    with suppress(KeyError), deepspeed_patches.checks_on_device():
        assert changed_names() != before
        raise KeyError
    assert changed_names() == before
    assert compiler.compile is compile_
    assert deepspeed.ops.__compatible_ops__ == operators


def test_unchanged_deepspeed_builds_an_operator_to_join_ranks_on_cpus(
    alone: RankGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`no_shared_memory_operator` is needed as long as this passes."""
    import deepspeed
    from deepspeed.accelerator import get_accelerator
    from deepspeed.comm.torch import build_shm_op

    builder = type(get_accelerator().create_op_builder("ShareMemCommBuilder"))
    built = []
    monkeypatch.setattr(builder, "load", lambda self: built.append(self))
    monkeypatch.setitem(deepspeed.ops.__compatible_ops__, builder.NAME, True)
    with deepspeed_patches.no_shared_memory_operator():
        build_shm_op()
    assert not built
    build_shm_op()
    assert built, "DeepSpeed no longer builds the operator: delete no_shared_memory_operator"


def test_ranks_on_gpus_join_although_deepspeed_does_not_list_the_operator_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import deepspeed

    operators = deepspeed.ops.__compatible_ops__
    monkeypatch.delitem(operators, "deepspeed_shm_comm")
    before = dict(operators)
    with deepspeed_patches.no_shared_memory_operator():
        assert operators == before
    assert operators == before


@pytest.mark.slow
@pytest.mark.parametrize("patched", [True, False])
def test_unchanged_deepspeed_imports_a_compiler_for_an_optimizer_that_is_not_used(patched: bool) -> None:
    """`import_muon_uncompiled` is needed as long as this passes."""
    code = f"""
import sys
from retfound_dist.train.engine import deepspeed_config, deepspeed_patches
deepspeed_config.prepare_import()
import deepspeed
if {patched}:
    deepspeed_patches.import_muon_uncompiled()
import deepspeed.runtime.zero.muon.original_muon
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split()[-1] == str(not patched), "see import_muon_uncompiled: can it be deleted?"
