"""`train.compile`: another way to run the same run."""

from pathlib import Path

import pytest
import safetensors.torch

from retfound_dist.formats import checkpoint_folder
from tests.stream.stream_inputs import make_set
from tests.train.launching import metrics, pretrain


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
