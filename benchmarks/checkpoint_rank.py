"""One rank of `benchmarks.checkpoint_stall`: real runs of the trainer, one after the other.

Started by:

    torchrun --nproc-per-node 2 -m benchmarks.checkpoint_rank SHARDS CASES.json
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path

from retfound_dist.config.loading import to_dict
from retfound_dist.config.schema import Checkpoint, Data, Model, PretrainConfig, Run, Train
from retfound_dist.formats.shard_set import read_manifest
from retfound_dist.io.scratch import Scratch
from retfound_dist.runtime.world import read_world
from retfound_dist.train.logs.telemetry import training_display
from retfound_dist.train.pretrain import run_joined
from retfound_dist.train.ranks.preemption import StopRequest
from retfound_dist.train.ranks.process_group import join_ranks, leave_ranks
from retfound_dist.train.ranks.rank_failures import RankFailures
from retfound_dist.train.ranks.upload_process import UploadProcess
from retfound_dist.train.ranks.watchdog import Watchdog
from retfound_dist.train.run_setup import RunContext

BATCH, SAVES = 8, 3
"""Images a step; saves of a run, the last of them at its end."""
MODELS = {
    "tiny": Model(
        name="vit_demo_patch14", image_size=112, decoder_width=96, decoder_depth=2, decoder_heads=3
    ),
    "small": Model(
        name="vit_small_patch16", image_size=96, decoder_width=192, decoder_depth=2, decoder_heads=6
    ),
    "wide": Model(
        name="vit_small_patch16", image_size=96, decoder_width=768, decoder_depth=4, decoder_heads=6
    ),
}


def config(shards: str, url: str, model: str, save_every: int, ranks: int) -> PretrainConfig:
    """A run at ZeRO 1 in bf16 that logs each step and saves every `save_every` steps."""
    train = Train(
        global_batch=BATCH,
        micro_batch=BATCH // ranks,
        steps=SAVES * save_every,
        zero_stage=1,
        precision="bf16",
        log_every=1,
        threads=1,
    )
    data = Data(shards=shards, workers=0, window_shards=2)
    return PretrainConfig(
        run=Run(url=url),
        data=data,
        model=MODELS[model],
        train=train,
        checkpoint=Checkpoint(every_steps=save_every),
    )


def main() -> None:
    """Run all cases; their events.jsonl and metrics.jsonl have the measurements."""
    shards, cases = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    world, manifest = read_world(os.environ), read_manifest(shards)
    group = join_ranks(world, threads=1)
    for url, model, save_every in cases:
        run_config = config(shards, url, model, save_every, world.size)
        watchdog = Watchdog(world, run_config.train.hang_minutes)
        watchdog.start()
        with training_display(shown=False) as display, Scratch("bench", world.owner) as scratch:
            config_tree, uploads = to_dict(run_config), UploadProcess(url)
            stop_request, failures = StopRequest(), RankFailures(group, watchdog)
            folder = scratch.folder
            run_joined(
                RunContext(
                    run_config,
                    config_tree,
                    manifest,
                    group,
                    display,
                    uploads,
                    stop_request,
                    watchdog,
                    folder,
                    failures,
                )
            )
        gc.collect()
    leave_ranks()


if __name__ == "__main__":
    main()
