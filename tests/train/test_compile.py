"""`train.compile`: another way to run the same run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch

from retfound_dist.formats import checkpoint_folder
from retfound_dist.model.compilation import GRAPHS
from tests import ROOT
from tests.stream.stream_inputs import make_set
from tests.train.launching import SMALL, metrics, pretrain


@pytest.mark.slow
def test_a_run_begun_compiled_goes_on_plain_and_is_the_same_run(tmp_path: Path) -> None:
    shards = make_set(tmp_path / "set").url
    fp32 = ["train.precision=fp32", "train.steps=4"]
    runs = {"plain": ["train.compile=false"], "compiled": [
        # The sizes that `auto` tries are not compiled, only the chosen one.
        "train.compile=true", 'train.micro_batch="auto"', "train.stop_at_step=3",
    ]}  # fmt: skip
    for name, how in runs.items():
        done = pretrain(1, tmp_path / name, shards, *fp32, *how)
        assert done.returncode == 0, done.stderr
    assert pretrain(2, tmp_path / "compiled", shards, *fp32, "train.compile=false").returncode == 0
    plain, compiled = (metrics(tmp_path / name) for name in runs)
    assert [r["batch_digest"] for r in compiled] == [r["batch_digest"] for r in plain]
    assert [r["loss"] for r in compiled] == pytest.approx([r["loss"] for r in plain], rel=1e-4)
    states = [
        safetensors.torch.load_file(
            f"{checkpoint_folder.checkpoint_url(str(tmp_path / name), 4)}/{checkpoint_folder.WEIGHTS}"
        )
        for name in runs
    ]
    assert states[0].keys() == states[1].keys()


COUNTED_RUN = """
import json, sys
from functools import partial
import torch
torch.compile = partial(torch.compile, backend="aot_eager")  # code is generated in seconds, graphs are the same
from torch._dynamo.utils import counters
from retfound_dist.cli import main
from retfound_dist.train.engine import micro_batch
trials, measure = [], micro_batch._measure_or_infinity

def measure_up_to_4(model, micro, *others):
    trials.append(micro)
    needed = measure(model, micro, *others)
    return needed if micro <= 4 else float("inf")

micro_batch._measure_or_infinity = measure_up_to_4
code = main(sys.argv[1:])
print(json.dumps([trials, counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())]))
sys.exit(code)
"""


@pytest.mark.slow
def test_trials_of_a_micro_batch_and_padded_passes_add_no_graph(tmp_path: Path) -> None:
    shards = make_set(tmp_path / "set").url
    command = [
        "pretrain", "configs/demo/pretrain.toml", f"run.url={tmp_path / 'run'}", f"data.shards={shards}", *SMALL,
        "train.steps=2", "train.compile=true", 'train.micro_batch="auto"',
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", COUNTED_RUN, *command], capture_output=True, text=True, cwd=ROOT, timeout=500
    )
    assert done.returncode == 0, done.stderr
    trials, graphs, breaks = json.loads(done.stdout.splitlines()[-1])
    assert len(trials) > 2
    assert "3 passes x 4, less 2 of 12 slots" in done.stderr
    assert (graphs, breaks) == (GRAPHS, 0)
