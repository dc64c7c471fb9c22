"""`launch/environment.sh` starts one rank for each GPU that the ranks will see."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import ROOT

FOUR_GPUS = "".join(
    f"echo 'GPU {number}: NVIDIA H100 80GB HBM3 (UUID: GPU-{number})'\n" for number in range(4)
)


def ranks_per_node(folder: Path, nvidia_smi: str | None, **variables: str) -> str:
    """RANKS_PER_NODE after the script, on a host whose nvidia-smi prints this; None: it has none."""
    if nvidia_smi is not None:
        (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{nvidia_smi}")
        (folder / "nvidia-smi").chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/local/bin:/usr/bin:/bin", "VENV": str(folder / "none")}
    done = subprocess.run(
        ["bash", "-euc", "source launch/environment.sh; echo $RANKS_PER_NODE"],
        env=environment | variables, capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("nvidia_smi", "variables", "ranks"),
    [
        (FOUR_GPUS, {}, "4"),
        (FOUR_GPUS, {"CUDA_VISIBLE_DEVICES": "1,3"}, "2"),
        (FOUR_GPUS, {"CUDA_VISIBLE_DEVICES": "GPU-1"}, "1"),
        (FOUR_GPUS, {"CUDA_VISIBLE_DEVICES": ""}, "1"),
        (FOUR_GPUS, {"CUDA_VISIBLE_DEVICES": "-1"}, "1"),
        (FOUR_GPUS, {"RANKS_PER_NODE": "3", "CUDA_VISIBLE_DEVICES": "1"}, "3"),
        (FOUR_GPUS, {"SLURM_GPUS_ON_NODE": "2"}, "2"),
        ("echo 'NVIDIA-SMI has failed because it could not communicate with the driver'\nexit 9\n", {}, "1"),
        (None, {}, "1"),
    ],
)
def test_there_is_a_rank_for_each_gpu_that_is_visible(
    nvidia_smi: str | None, variables: dict[str, str], ranks: str, tmp_path: Path
) -> None:
    assert ranks_per_node(tmp_path, nvidia_smi, **variables) == ranks
