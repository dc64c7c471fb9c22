"""The trainer's step against a plain torch loop over the same global batches, read from the same shards.

The plain loop is one process with the whole batch at once, fp32, torch's own AdamW, and no padding.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.formats.shard_set import Manifest, read_manifest
from retfound_dist.model.cpu_bf16 import choose_cpu_operators
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.runtime.world import World
from retfound_dist.stream.batch_plan import batch_digest
from retfound_dist.stream.loader import MicroBatch, Stream, open_stream
from retfound_dist.train.engine.engine_choice import make_engine
from retfound_dist.train.health.anomalies import StepRecord
from retfound_dist.train.health.sample_faults import SampleFaults
from retfound_dist.train.logs.telemetry import Clock
from retfound_dist.train.parameter_groups import parameter_groups
from retfound_dist.train.ranks.collectives import RankGroup
from retfound_dist.train.ranks.process_group import join_ranks, leave_ranks
from retfound_dist.train.schedule import make_schedule
from retfound_dist.train.train_step import train_step
from tests.stream.stream_inputs import make_set
from tests.train.engine_state import fp32_weights_of, gradients_of, learning_rates_of
from tests.train.launching import SMALL

BATCH, STEPS, BEGIN = 11, 3, 4
"""Steps BEGIN ... BEGIN + STEPS - 1 of a run, in its warm-up: each has a rate of its own."""
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    micro: int
    precision: str = "fp32"
    stage: int = 2

    @property
    def name(self) -> str:
        return f"{self.precision}-zero{self.stage}-micro{self.micro}"

    @property
    def near(self) -> float:
        return 2e-5 if self.precision == "fp32" else 3e-2


ALONE = (Case(4), Case(11), Case(4, "bf16"), Case(4, stage=3))
"""Three passes of 4 with one slot of padding, or one pass with none."""
TOGETHER = (Case(2), Case(2, "bf16"), Case(64, stage=3))


@dataclass
class Taken:
    """What the steps of one rank came to."""

    losses: list[float]
    norms: list[float]
    gradients: list[Tensors]
    weights: Tensors
    records: list[StepRecord]


def config_of(manifest: Manifest, case: Case) -> PretrainConfig:
    settings = [
        f"data.shards={manifest.url}", "run.url=unused", *SMALL, f"train.micro_batch={case.micro}", "train.steps=40",
        f"train.global_batch={BATCH}", f"train.precision={case.precision}", f"train.zero_stage={case.stage}",
        "optim.base_lr=0.02", "optim.warmup_epochs=8",
    ]  # fmt: skip
    return load(PretrainConfig, "configs/demo/pretrain.toml", settings)[0]


def network(config: PretrainConfig) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(config.model)


def stream_of(config: PretrainConfig, manifest: Manifest, world: World, micro: int) -> Stream:
    return open_stream(
        manifest, BATCH, micro_batch=micro, image_size=config.model.image_size, patches=4, seed=3, world=world,
        start_step=BEGIN, stop_step=BEGIN + STEPS, data=config.data,
    )  # fmt: skip


def with_noisy_padding(stream: Stream) -> Iterator[MicroBatch]:
    """Padding that would be seen: white noise in place of black, and masks of its own."""
    for part in stream:
        images = torch.where(
            part.weight[:, None, None, None] > 0, part.images, torch.randint_like(part.images, 256)
        )
        noise = torch.where(part.weight[:, None] > 0, part.noise, torch.rand_like(part.noise))
        yield replace(part, images=images, noise=noise)


def plain_loop(manifest: Manifest) -> Taken:
    """The reference."""
    config = config_of(manifest, Case(BATCH))
    net, schedule = network(config), make_schedule(config, manifest, 1, BATCH)
    optimizer = torch.optim.AdamW(parameter_groups(net, config.optim), lr=0.0, betas=config.optim.betas)
    found = Taken([], [], [], {}, [])
    with stream_of(config, manifest, World(), BATCH) as stream:
        for number, whole in enumerate(stream, BEGIN):
            assert whole.weight.tolist() == [1.0] * BATCH
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr(number)
            optimizer.zero_grad()
            loss = net(whole.images, whole.noise).mean()
            loss.backward()
            found.losses.append(float(loss.detach()))
            found.gradients.append(
                {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
            )
            found.norms.append(
                float(torch.cat([g.flatten().double() for g in found.gradients[-1].values()]).norm())
            )
            optimizer.step()
    found.weights = {n: p.detach().clone() for n, p in net.named_parameters()}
    return found


def our_steps(case: Case, manifest: Manifest, group: RankGroup) -> Taken:
    """The same by `train_step` on a real engine, of one rank; gradients are read just before they are applied."""
    config = config_of(manifest, case)
    net, schedule = network(config), make_schedule(config, manifest, group.world.size, case.micro)
    choose_cpu_operators(net, config.train.precision)
    net.to(torch.bfloat16 if case.precision == "bf16" else torch.float32)
    fixed = {n: p.detach().clone() for n, p in net.named_parameters() if not p.requires_grad}
    engine = make_engine(
        net, parameter_groups(net, config.optim), config.train, config.optim, schedule.layout
    )
    gradients: list[Tensors] = []
    end_pass, passes = engine.end_pass, itertools.count(1)

    def end_pass_and_keep_gradients() -> torch.Tensor | None:
        if next(passes) % schedule.layout.accumulation == 0:
            gradients.append(gradients_of(engine))
        return end_pass()

    engine.end_pass = end_pass_and_keep_gradients  # type: ignore[method-assign]
    clock, sample_faults, records = Clock(), SampleFaults(0), []
    with stream_of(config, manifest, group.world, case.micro) as stream:
        parts = with_noisy_padding(stream)
        for number in range(BEGIN, BEGIN + STEPS):
            records.append(train_step(engine, parts, schedule, group, clock, sample_faults, number))
            assert learning_rates_of(engine) == [schedule.lr(number)] * 2
    assert clock.steps == STEPS
    losses = (group.sum(torch.stack([r.loss for r in records])) / BATCH).tolist()
    weights = fp32_weights_of(engine) | fixed
    return Taken(losses, [float(r.grad_norm) for r in records], gradients, weights, records)


def off(ours: Tensors, plain: Tensors) -> float:
    """The distance of two sets of tensors, held against the size of the second."""
    flat = [torch.cat([each[name].flatten().double() for name in plain]) for each in (ours, plain)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def assert_same_steps(ours: Taken, plain: Taken, case: Case) -> None:
    """Closely in the first step, whose weights are the same; then bf16 weights have moved by other roundings."""
    for number in range(STEPS):
        near = case.near if number == 0 or case.precision == "fp32" else 4 * case.near
        assert ours.losses[number] == pytest.approx(plain.losses[number], rel=near), (case, number)
        assert ours.norms[number] == pytest.approx(plain.norms[number], rel=near), (case, number)
        assert set(ours.gradients[number]) == set(plain.gradients[number])
        assert off(ours.gradients[number], plain.gradients[number]) < 3 * near, (case, number)
    assert off(ours.weights, plain.weights) < case.near, case


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_set(tmp_path_factory.mktemp("set"), count=40)


@pytest.fixture(scope="module")
def plain(manifest: Manifest) -> Taken:
    return plain_loop(manifest)


def test_the_batches_have_rates_losses_and_gradients_of_their_own(plain: Taken, manifest: Manifest) -> None:
    """Otherwise the tests below could not tell one step from another."""
    schedule = make_schedule(config_of(manifest, Case(BATCH)), manifest, 1, BATCH)
    rates = [schedule.lr(number) for number in range(BEGIN - 1, BEGIN + STEPS + 1)]
    assert len(set(rates)) == len(rates)
    assert len({round(loss, 4) for loss in plain.losses}) == STEPS
    assert all(norm > 0.1 for norm in plain.norms)


@pytest.mark.parametrize("case", ALONE, ids=lambda case: case.name)
def test_loss_and_gradient_are_the_mean_over_exactly_the_global_batch(
    case: Case, manifest: Manifest, plain: Taken, alone: RankGroup
) -> None:
    assert_same_steps(our_steps(case, manifest, alone), plain, case)


def test_a_record_names_every_sample_of_its_step_once_with_its_own_loss(
    manifest: Manifest, plain: Taken, alone: RankGroup
) -> None:
    config = config_of(manifest, Case(4))
    with stream_of(config, manifest, World(), BATCH) as stream:
        whole = list(stream)
    net = network(config)
    with torch.no_grad():
        expected = dict(zip(whole[0].keys, net(whole[0].images, whole[0].noise).tolist(), strict=True))
    records = our_steps(Case(4), manifest, alone).records
    for number, (record, batch) in enumerate(zip(records, whole, strict=True)):
        assert record.step == BEGIN + number + 1
        assert record.keys == batch.keys
        assert record.digest % 2**64 == batch_digest(batch.keys)
        assert record.loss.dtype == torch.float64
        assert not record.loss.requires_grad
    assert [len(part) for part in records[0].losses] == [4, 4, 3]
    assert dict(zip(records[0].keys, torch.cat(records[0].losses).tolist(), strict=True)) == pytest.approx(
        expected, rel=1e-5
    )


def test_what_a_step_could_not_read_reaches_the_account(manifest: Manifest, alone: RankGroup) -> None:
    config = config_of(manifest, Case(4))
    net, schedule = network(config), make_schedule(config, manifest, 1, 4)
    engine = make_engine(
        net, parameter_groups(net, config.optim), config.train, config.optim, schedule.layout
    )
    sample_faults = SampleFaults(10)
    with stream_of(config, manifest, World(), 4) as stream:
        parts = (replace(part, faults=[f"oct-000000/{number}: broken"]) for number, part in enumerate(stream))
        train_step(engine, parts, schedule, alone, Clock(), sample_faults, BEGIN)
    assert sample_faults._new_faults == [
        "oct-000000/0: broken",
        "oct-000000/1: broken",
        "oct-000000/2: broken",
    ]


def test_a_sample_whose_loss_is_not_finite_is_suspected_and_the_weights_stay(
    manifest: Manifest, alone: RankGroup
) -> None:
    config = config_of(manifest, Case(4))
    net, schedule = network(config), make_schedule(config, manifest, 1, 4)
    engine = make_engine(
        net, parameter_groups(net, config.optim), config.train, config.optim, schedule.layout
    )
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    with stream_of(config, manifest, World(), 4) as stream:
        parts = list(stream)[:3]
    parts[1].weight[2] = math.nan
    record = train_step(engine, iter(parts), schedule, alone, Clock(), SampleFaults(0), BEGIN)
    assert record.suspects() == [parts[1].keys[2]]
    assert not math.isfinite(float(record.loss))
    assert not math.isfinite(float(record.grad_norm))
    assert all(torch.equal(p, before[n]) for n, p in net.named_parameters())


def one_rank(rank: int, world: int, port: int, url: str, folder: str) -> None:
    """Every case on one rank of a group."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    group, manifest = join_ranks(World(rank, world, rank), threads=1), read_manifest(url)
    for case in TOGETHER:
        taken = our_steps(case, manifest, group)
        keys = group.gather([record.keys for record in taken.records])
        digests = group.gather([record.digest for record in taken.records])
        if rank == 0:
            found: dict[str, Any] = {**vars(taken), "records": [], "keys": keys, "digests": digests}
            torch.save(found, f"{folder}/{case.name}")
    group.broadcast(None)
    leave_ranks()


@pytest.mark.slow
def test_three_ranks_with_padding_take_the_plain_step_over_the_global_batch(
    manifest: Manifest, plain: Taken, tmp_path: Path
) -> None:
    """3 ranks x 2 passes x 2, or 3 ranks x 1 pass x 4: one slot of 12 is padding."""
    world, port = 3, 23000 + os.getpid() % 9000
    mp.start_processes(one_rank, (world, port, manifest.url, str(tmp_path)), world, start_method="spawn")
    with stream_of(config_of(manifest, Case(BATCH)), manifest, World(), BATCH) as stream:
        batches = [part.keys for part in stream]
    for case in TOGETHER:
        found = torch.load(tmp_path / case.name, weights_only=True)
        keys, digests = found.pop("keys"), found.pop("digests")
        assert_same_steps(Taken(**found), plain, case)
        for number, batch in enumerate(batches):
            assert [key for rank in keys for key in rank[number]] == batch
            assert sum(rank[number] for rank in digests) % 2**64 == batch_digest(batch)
