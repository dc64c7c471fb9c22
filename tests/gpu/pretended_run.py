"""A rank of `retfound` on a pretended GPU: `python -m tests.gpu.pretended_run WAITS COMMAND ...`.

It writes the waits of rank 0 to WAITS: how often each function of this repository has waited.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import torch.distributed as dist

from retfound_dist.cli import main
from retfound_dist.runtime.world import read_world
from retfound_dist.train import trainer
from tests.gpu.pretend_gpu import pretend_gpu


def run(waits: Path, command: list[str]) -> int:
    """Run the command; its exit code."""
    world, init_process_group = read_world(os.environ), dist.init_process_group

    def init_over_gloo(backend: str, *, device_id: Any = None, **options: Any) -> None:
        init_process_group("gloo", **options)  # NCCL needs real GPUs

    with (
        mock.patch.object(dist, "init_process_group", init_over_gloo),
        # The rate of a GPU is measured with matrices that take a CPU minutes.
        mock.patch.object(trainer, "matrix_rate", return_value=1e12),
        pretend_gpu(world.local_rank, world.size) as gpu,
    ):
        code = main(command)
    if world.is_main:
        waits.write_text(json.dumps(Counter(wait.where for wait in gpu.waits)))
    return code


if __name__ == "__main__":
    code = run(Path(sys.argv[1]), sys.argv[2:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
