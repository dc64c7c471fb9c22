"""DeepSpeed's configuration: what is accumulated and sent in fp32, and what its import reads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from retfound_dist.config.schema import Optim, Train
from retfound_dist.stream.batch_plan import make_batch_layout
from retfound_dist.train.engine.deepspeed_config import deepspeed_config


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_configuration_accumulates_and_reduces_in_fp32(stage: int) -> None:
    train = Train(global_batch=1792, steps=1, zero_stage=stage)  # type: ignore[arg-type]
    settings = deepspeed_config(train, Optim(clip_grad=1.0), make_batch_layout(1792, 8, 64), stage)
    assert settings["data_types"]["grad_accum_dtype"] == "fp32"
    assert settings["communication_data_type"] == "fp32"
    assert settings["train_micro_batch_size_per_gpu"] * settings["gradient_accumulation_steps"] * 8 == 1792
    assert settings["zero_optimization"]["stage"] == stage
    assert settings["gradient_clipping"] == 1.0
    assert not settings["timers"]["throughput"]["enabled"]  # it waits for the device
    assert "train_batch_size" not in settings


@pytest.mark.slow
def test_the_import_of_deepspeed_prints_nothing() -> None:
    code = "from retfound_dist.train.engine.deepspeed_config import prepare_import; prepare_import(); import deepspeed"
    clean = {k: v for k, v in os.environ.items() if k not in ("DS_ACCELERATOR", "DEEPSPEED_LOG_LEVEL")}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=clean)
    assert "accelerator" not in done.stdout + done.stderr
