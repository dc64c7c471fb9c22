"""Steps of the trainer in a process of its own, for what they take of memory: SPEC OUT."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from retfound_dist.config.schema import Model, Optim, Train
from retfound_dist.model.cpu_bf16 import choose_cpu_operators
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.runtime.world import World
from retfound_dist.stream.batch_plan import make_batch_layout
from retfound_dist.train.engine.engine_choice import make_engine
from retfound_dist.train.engine.memory_meter import MemoryMeter, release_freed_memory
from retfound_dist.train.parameter_groups import parameter_groups
from retfound_dist.train.ranks.process_group import join_ranks


def main() -> None:
    spec = json.loads(sys.argv[1])
    micro, precision = spec["micro"], spec["precision"]
    device = join_ranks(World(), 2).device
    meter = MemoryMeter(device)
    settings: dict[str, Any] = {"zero_stage": spec["stage"], "precision": precision}
    train = Train(global_batch=micro, micro_batch=micro, steps=3, **settings)
    model = MaskedAutoencoder(Model(name="vit_small_patch16"), spec["recompute"])
    choose_cpu_operators(model, precision)
    model.to(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    engine = make_engine(
        model, parameter_groups(model, Optim()), train, Optim(), make_batch_layout(micro, 1, micro)
    )
    release_freed_memory()
    images = torch.zeros(micro, 1, *model.config.size, dtype=torch.uint8, device=device)
    for _ in range(3):
        engine.backward(engine(images, torch.rand(micro, model.patches, device=device)).mean())
        engine.end_pass()
        taken = meter.peak_bytes()
    Path(sys.argv[2]).write_text(str(taken))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
