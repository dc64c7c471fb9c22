"""DeepSpeed's steps against a plain fp32 loop: gradient, ten steps of weights, and a step that goes wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from retfound_dist.config.schema import Model, Optim, Train
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.runtime.world import World
from retfound_dist.stream.batch_plan import BatchLayout, make_batch_layout, rank_slots
from retfound_dist.train.checkpoint.merge_weights import group_shapes, merge, rank_weights
from retfound_dist.train.engine.deepspeed_engine import give_each_parameter_its_step
from retfound_dist.train.engine.engine_choice import make_engine
from retfound_dist.train.engine.training_engine import TrainingEngine
from retfound_dist.train.parameter_groups import parameter_groups
from retfound_dist.train.ranks.process_group import join_ranks, leave_ranks
from tests.train.engine_state import gradients_of
from tests.train.waits import Waits

CONFIG = Model(name="vit_demo_patch14", image_size=28, decoder_width=32, decoder_depth=1, decoder_heads=2)
BATCH, STEPS, LR = 11, 10, 1e-3
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    stage: int
    passes: int
    precision: str = "fp32"
    clip: float = 0.0
    offload: bool = False
    recompute: bool = False

    @property
    def name(self) -> str:
        extra = f"{'-clip' * bool(self.clip)}{'-offload' * self.offload}{'-recompute' * self.recompute}"
        return f"zero{self.stage}-passes{self.passes}-{self.precision}{extra}"


CASES = (
    *(Case(stage, passes) for stage in (0, 1, 2, 3) for passes in (1, 4)),
    *(Case(stage, passes, "bf16") for stage in (0, 1, 2, 3) for passes in (1, 4)),
    Case(2, 4, clip=0.1),
    Case(1, 4, "bf16", clip=0.1),
    Case(2, 1, offload=True),
    Case(1, 1, recompute=True),
)


def cases_on(world: int) -> list[Case]:
    """All cases on one rank; half of them on two ranks, the other half on three.

    Each stage has both precisions and both numbers of passes on two ranks, and on three.
    """
    if world == 1:
        return list(CASES)
    return [
        case
        for case in CASES
        if (case.stage + (case.passes > 1) + (case.precision == "bf16") + world) % 2 == 0
    ]


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (STEPS, BATCH, 1, 28, 28), dtype=torch.uint8, generator=draw)
    return images, torch.rand(STEPS, BATCH, 4, generator=draw)


def model(recompute: bool = False) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(CONFIG, recompute)


def plain_loop(clip: float = 0.0) -> tuple[Weights, Weights]:
    """One process, the whole batch at once, no DeepSpeed: the first gradient and the last weights."""
    net, first = model(), {}
    optimizer = torch.optim.AdamW(parameter_groups(net, Optim()), lr=LR, betas=(0.9, 0.95))
    for images, noise in zip(*inputs(), strict=True):
        optimizer.zero_grad()
        net(images, noise).mean().backward()
        first = first or {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
        if clip:
            torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimizer.step()
    return first, {k: v.detach() for k, v in net.state_dict().items()}


def one_rank(rank: int, world: int, port: int, cases: Sequence[Case], folder: str) -> None:
    """Every case on one rank of a group."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    group = join_ranks(World(rank, world, rank), threads=1)
    for case in cases:
        results = run_case(case, rank, world, folder)
        if rank == 0:
            torch.save(results, f"{folder}/{case.name}")
    group.broadcast(None)
    leave_ranks()


def committed(engine: TrainingEngine, folder: str, fixed: Weights, world: int) -> Weights:
    """The weights as a checkpoint has them, put together from every rank's part."""
    state = engine.snapshot(folder, {})
    torch.save(rank_weights(state), f"{folder}/part{dist.get_rank()}")
    dist.barrier()
    parts = [torch.load(f"{folder}/part{rank}", weights_only=True) for rank in range(world)]
    dist.barrier()
    shapes = [group_shapes(state) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(shapes, src=0)
    return merge(parts, shapes[0] or []) | fixed


def run_case(case: Case, rank: int, world: int, folder: str) -> dict[str, Any]:
    net, micro = model(case.recompute), -(-BATCH // (world * case.passes))
    cut = make_batch_layout(BATCH, world, micro)
    fixed = {n: p.detach().clone() for n, p in net.named_parameters() if not p.requires_grad}
    optim = Optim(clip_grad=case.clip)
    train = Train(
        global_batch=BATCH,
        steps=STEPS,
        zero_stage=case.stage,  # type: ignore[arg-type]
        precision=case.precision,  # type: ignore[arg-type]
        offload_optimizer=case.offload,
    )
    engine = make_engine(net, parameter_groups(net, optim), train, optim, cut)
    gradient: Weights = {}

    def one_step(number: int, factor: float = 1.0) -> torch.Tensor | None:
        engine.set_lr(LR)
        norm = None
        for a in range(cut.accumulation):
            engine.backward(
                own_losses(engine, cut, rank, number, a).sum() * (world * cut.accumulation / BATCH) * factor
            )
            if not gradient and a == cut.accumulation - 1:
                gradient.update(gradients_of(engine))
            norm = engine.end_pass()
        return norm

    waits = Waits()
    for number in range(STEPS):
        if number == STEPS - 1:
            with waits:
                one_step(number)
        else:
            one_step(number)
    weights = committed(engine, folder, fixed, world)
    norm = one_step(0, float("nan") if rank == world - 1 else 1.0)
    after = committed(engine, folder, fixed, world)
    one_step(1)
    moved = committed(engine, folder, fixed, world)
    return {
        "gradient": gradient,
        "weights": weights,
        "norm": norm,
        "after": after,
        "moved": moved,
        "waits": waits.count,
    }


def own_losses(engine: TrainingEngine, cut: BatchLayout, rank: int, number: int, a: int) -> torch.Tensor:
    images, noise = (each[number] for each in inputs())
    here = rank_slots(cut, rank, a)
    part = torch.zeros(cut.micro, 1, 28, 28, dtype=torch.uint8)
    mask, weight = torch.rand(cut.micro, 4), torch.zeros(cut.micro)
    held = len(images[here])
    part[:held], mask[:held], weight[:held] = images[here], noise[here], 1
    losses: torch.Tensor = engine(part, mask) * weight
    return losses


def off(ours: Weights, plain: Weights, unit: Weights) -> float:
    """The distance between two sets of tensors, held against the size of a third."""
    flat = [torch.cat([each[name].flatten().double() for name in unit]) for each in (ours, plain, unit)]
    return float((flat[0] - flat[1]).norm() / flat[2].norm())


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_step_is_the_plain_fp32_step_never_waits_for_the_device_and_moves_nothing_if_not_finite(
    world: int, tmp_path: Path
) -> None:
    mp.start_processes(
        one_rank,
        (world, 23000 + os.getpid() % 9000 + world, cases_on(world), str(tmp_path)),
        world,
        start_method="spawn",
    )
    first, start = plain_loop()[0], model().state_dict()
    for case in cases_on(world):
        results = torch.load(tmp_path / case.name, weights_only=True)
        gradient, plain = plain_loop(case.clip)
        moved = {k: plain[k] - start[k] for k in plain}
        exact = case.precision == "fp32"
        assert set(results["gradient"]) == set(first), case
        assert off(results["gradient"], gradient, gradient) < (1e-5 if exact else 2e-2), case
        assert off(results["weights"], plain, plain) < (1e-5 if exact else 5e-3), case
        assert off(results["weights"], plain, moved) < (1e-3 if exact else 0.15), case
        assert not torch.isfinite(results["norm"]), case
        most = 2 if case.stage == 3 else 0  # of its own DeepSpeed marks each group's norm
        assert results["waits"] <= most or case.offload, (case, results["waits"])
        assert off(results["after"], results["weights"], plain) == 0, case
        assert off(results["moved"], results["weights"], plain) > 1e-4, case
        assert all(value.isfinite().all() for value in results["moved"].values()), case


def test_every_case_runs_on_several_ranks_and_every_stage_on_both_numbers_of_them() -> None:
    two, three = cases_on(2), cases_on(3)
    assert {case.name for case in two} | {case.name for case in three} == {case.name for case in CASES}
    for cases in (two, three):
        for stage in (0, 1, 2, 3):
            at_stage = [case for case in cases if case.stage == stage]
            assert {case.precision for case in at_stage} == {"fp32", "bf16"}
            assert {case.passes for case in at_stage} == {1, 4}


def test_a_converted_state_has_its_steps_beside_the_parameters() -> None:
    """As fused AdamW needs it on a GPU; `meta` is a device that every machine has."""
    parameters = [torch.nn.Parameter(torch.zeros(2, device="meta")) for _ in range(2)]
    optimizer, step = torch.optim.AdamW(parameters), torch.tensor(3.0)
    for parameter in parameters:
        optimizer.state[parameter] = {"step": step}
    give_each_parameter_its_step(optimizer)
    steps = [optimizer.state[parameter]["step"] for parameter in parameters]
    assert [each.device.type for each in steps] == ["meta", "meta"]
    assert steps[0] is not steps[1]
