"""The step of pretraining, the held-out loss and the state of a run on a pretended GPU.

A step may not wait for the GPU at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.runtime.world import World
from retfound_dist.stream.loader import Stream, open_stream
from retfound_dist.train.engine.engine_choice import make_engine
from retfound_dist.train.engine.micro_batch import find_micro_batch
from retfound_dist.train.engine.training_engine import RUN_STATE, STATE_FOLDER, TrainingEngine
from retfound_dist.train.health.anomalies import Anomalies, StepRecord
from retfound_dist.train.health.sample_faults import SampleFaults
from retfound_dist.train.held_out_loss import HeldOut
from retfound_dist.train.logs.telemetry import Clock
from retfound_dist.train.parameter_groups import parameter_groups
from retfound_dist.train.ranks.collectives import RankGroup
from retfound_dist.train.schedule import RunSchedule, make_schedule
from retfound_dist.train.train_step import train_step
from tests.gpu.gpu_tensor import GpuTensor, PretendGpu
from tests.gpu.pretend_gpu import pretend_gpu
from tests.stream.stream_inputs import make_set
from tests.train.launching import SMALL

STEPS = 3


@dataclass
class Run:
    """A run of one rank without its files."""

    config: PretrainConfig
    schedule: RunSchedule
    group: RankGroup
    model: MaskedAutoencoder
    engine: TrainingEngine
    stream: Stream


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_set(tmp_path_factory.mktemp("set"), count=40)


@pytest.fixture
def gpu() -> Iterator[PretendGpu]:
    with pretend_gpu() as gpu:
        yield gpu


def run_on(device: str, manifest: Manifest, *settings: str) -> Run:
    """Three passes of 4 images a step; the last pass is filled up."""
    overrides = [f"data.shards={manifest.url}", "run.url=unused", *SMALL, "train.steps=40", *settings]
    config = load(PretrainConfig, "configs/demo/pretrain.toml", overrides)[0]
    torch.manual_seed(0)
    model = MaskedAutoencoder(config.model, config.train.activation_checkpointing)
    model.blocks = model.blocks[:1]
    model.to(device, torch.bfloat16 if config.train.precision == "bf16" else torch.float32)
    schedule = make_schedule(config, manifest, 1, 4)
    groups = parameter_groups(model, config.optim)
    engine = make_engine(model, groups, config.train, config.optim, schedule.layout)
    stream = open_stream(
        manifest,
        10,
        micro_batch=4,
        image_size=28,
        patches=4,
        world=World(),
        stop_step=STEPS,
        data=config.data,
    )
    return Run(config, schedule, RankGroup(World(), torch.device(device)), model, engine, stream)


def take_steps(run: Run, first: int = 0) -> list[StepRecord]:
    """The steps from `first` on."""
    batches, clock, faults = iter(run.stream), Clock(), SampleFaults(0)
    for _ in range(first * run.schedule.layout.accumulation):
        next(batches)
    return [
        train_step(run.engine, batches, run.schedule, run.group, clock, faults, number)
        for number in range(first, STEPS)
    ]


CASES = {
    "fp32": ["train.precision=fp32"],
    "bf16-clipped": ["train.precision=bf16", "optim.clip_grad=0.01"],
    "fp32-recomputed": ["train.precision=fp32", "train.activation_checkpointing=true"],
}


@pytest.mark.parametrize("name", CASES)
def test_no_step_waits_for_the_gpu_and_each_has_the_numbers_of_a_cpu(
    name: str, manifest: Manifest, gpu: PretendGpu
) -> None:
    summaries, weights = [], []
    for device in ("cpu", "cuda:0"):
        run = run_on(device, manifest, *CASES[name])
        with gpu.watched() as waits:
            records = take_steps(run)
        assert waits == []
        assert {record.loss.device.type for record in records} == {device[:4].rstrip(":")}
        with gpu.watched() as waits:
            summaries.append(Anomalies(0, 10).summarize(records, run.group))
        # A logged step reads the losses and the norms of all steps since the last one.
        assert [wait.why for wait in waits] == ["copies to the host"] * (2 if device != "cpu" else 0)
        weights.append(torch.cat([p.detach().float().flatten().cpu() for p in run.model.parameters()]))
    near = 1e-5 if "fp32" in CASES[name][0] else 1e-2
    assert summaries[1].losses == pytest.approx(summaries[0].losses, rel=near)
    assert summaries[1].grad_norm == pytest.approx(summaries[0].grad_norm, rel=10 * near)
    assert float((weights[1] - weights[0]).norm() / weights[0].norm()) < near


def test_a_gradient_that_is_not_finite_changes_nothing_and_no_step_waits_for_that_answer(
    manifest: Manifest, gpu: PretendGpu
) -> None:
    run = run_on("cuda", manifest, "optim.clip_grad=1.0")
    before = run.model.cls_token.detach().clone()
    images = torch.zeros(4, 1, 28, 28, dtype=torch.uint8, device="cuda")
    noise = torch.rand(4, 4, device="cuda")
    with gpu.watched() as waits:
        for _ in range(run.schedule.layout.accumulation):
            run.engine.backward(run.engine(images, noise).sum() * torch.inf)
            run.engine.end_pass()
    assert waits == []
    assert torch.equal(run.model.cls_token.cpu(), before.cpu())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_resumes_takes_the_step_that_it_would_have_taken(
    precision: str, manifest: Manifest, gpu: PretendGpu, tmp_path: Path
) -> None:
    settings = f"train.precision={precision}"
    whole = run_on("cuda", manifest, settings)
    batches, faults = iter(whole.stream), SampleFaults(0)
    for number in range(2):
        train_step(whole.engine, batches, whole.schedule, whole.group, Clock(), faults, number)
    with gpu.watched() as waits:
        state = whole.engine.snapshot(str(tmp_path), {RUN_STATE: {"a": 1}})
    assert [wait.why for wait in waits] == ["torch.cuda.synchronize"], "one wait for all copies"
    assert not any(isinstance(leaf, GpuTensor) for leaf in torch.utils._pytree.tree_leaves(state))
    for path, content in state.items():
        Path(path).parent.mkdir(exist_ok=True)
        torch.save(content, path)
    expected = train_step(whole.engine, batches, whole.schedule, whole.group, Clock(), faults, 2)

    resumed = run_on("cuda", manifest, settings)
    assert resumed.engine.load(str(tmp_path), STATE_FOLDER) == {"a": 1}
    with gpu.watched() as waits:
        found = take_steps(resumed, first=2)[0]
    assert waits == []
    assert float(found.loss) == float(expected.loss)
    for mine, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine.cpu(), theirs.cpu())


def test_the_held_out_loss_is_that_of_a_cpu_and_waits_once_for_all_batches(
    manifest: Manifest, gpu: PretendGpu
) -> None:
    scores: list[float] = []
    places: list[str] = []
    for device in ("cpu", "cuda"):
        run = run_on(device, manifest, "train.precision=fp32")
        held_out = HeldOut(30, list(run.stream))
        assert len(held_out.batches) == 9
        with gpu.watched() as waits:
            scores.append(held_out.score(run.engine, run.model, run.group))
        places = [wait.where for wait in waits]
    assert scores[1] == pytest.approx(scores[0], rel=1e-5)
    assert places == ["retfound_dist/train/held_out_loss.py score"]


def test_micro_batches_are_tried_on_the_gpu(manifest: Manifest, gpu: PretendGpu) -> None:
    run = run_on("cuda", manifest)
    assert find_micro_batch(run.model, run.config.train, 2, 1, run.group).micro == 10
    assert all(p.grad is None for p in run.model.parameters())
