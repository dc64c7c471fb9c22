"""Whole runs on pretended GPUs: alone, with DeepSpeed's engine for GPUs at each ZeRO stage, and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.stream.stream_inputs import make_set
from tests.train.launching import SMALL, metrics

pytestmark = pytest.mark.slow
STEPS = 4
ENGINE = "retfound_dist/train/engine/"
BACKWARD = f"{ENGINE}deepspeed_engine.py backward"
IN_STEPS = ("retfound_dist/model/", "retfound_dist/train/train_step.py", f"{ENGINE}single_rank_engine.py")
"""Where a wait of a step would be, besides DeepSpeed's engine."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_set(tmp_path_factory.mktemp("set"), count=40).url


def pretend(ranks: int, run: Path, shards: str, *settings: str) -> dict[str, int]:
    """Train on so many pretended GPUs; how often each function has waited."""
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    waits = run.parent / "waits.json"
    done = subprocess.run(
        [
            *launcher, "-m", "tests.gpu.pretended_run", waits, "pretrain", "configs/demo/pretrain.toml",
            f"run.url={run}", f"data.shards={shards}", *SMALL, f"train.steps={STEPS}", "train.compile=false",
            "train.log_every=2", *settings,
        ],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "on pretended GPU" in done.stderr
    counts: dict[str, int] = json.loads(waits.read_text())
    return counts


def waits_of_steps(counts: dict[str, int]) -> dict[str, int]:
    """The waits of the steps themselves, not of the start, of logged steps and of saves."""
    of_deepspeed = [f"{ENGINE}deepspeed_engine.py {name}" for name in ("__call__", "backward", "end_pass")]
    return {
        where: count
        for where, count in counts.items()
        if where in of_deepspeed
        or (where.startswith(IN_STEPS) and not where.endswith(("_copy_state", "wait_for_device")))
    }


@pytest.fixture(scope="module")
def alone(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one rank that was stopped, and resumed with the micro-batch that fits."""
    run = tmp_path_factory.mktemp("alone") / "run"
    for settings in (["train.stop_at_step=2"], ['train.micro_batch="auto"']):
        assert waits_of_steps(pretend(1, run, shards, *settings)) == {}
    return run


@pytest.mark.parametrize(
    ("stage", "precision", "waits"),
    [
        (1, "bf16", {}),
        # As docs/run.md says: once in each step, and once in each of the two passes of a step.
        (1, "fp32", {BACKWARD: STEPS}),
        (2, "bf16", {BACKWARD: 2 * STEPS}),
    ],
)
def test_ranks_with_a_gpu_each_take_the_steps_of_one_and_wait_as_documented(
    stage: int, precision: str, waits: dict[str, int], shards: str, alone: Path, tmp_path: Path
) -> None:
    counts = pretend(2, tmp_path / "run", shards, f"train.zero_stage={stage}", f"train.precision={precision}")
    assert waits_of_steps(counts) == waits
    ours, expected = ({row["step"]: row["loss"] for row in metrics(run)} for run in (tmp_path / "run", alone))
    assert list(ours) == [1, 2, STEPS]
    # The run of one rank is in bf16.
    near = 1e-3 if precision == "bf16" else 1e-2
    assert ours == pytest.approx({step: expected[step] for step in ours}, rel=near)


def test_a_run_goes_on_at_zero_3_and_with_its_state_on_the_host(shards: str, tmp_path: Path) -> None:
    """From one engine to the others, by the converted state; fused AdamW takes its steps on the GPU."""
    run = tmp_path / "run"
    pretend(2, run, shards, "train.zero_stage=2", "train.stop_at_step=1")
    pretend(1, run, shards, "train.zero_stage=3", "train.stop_at_step=2")
    pretend(2, run, shards, "train.zero_stage=2", "train.offload_optimizer=true", "train.stop_at_step=3")
    assert waits_of_steps(pretend(1, run, shards, "train.zero_stage=2")) == {}
    assert [row["step"] for row in metrics(run)][-1] == STEPS
