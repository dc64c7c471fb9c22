"""The loss on patients that are never trained on, with the same images and masks at each checkpoint.

Images and masks depend only on the shard set, not on the run's seed, ranks or steps. So losses of several
runs on one set can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from retfound_dist.config.schema import PretrainConfig
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.model.compilation import uncompiled
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.stream.held_out_part import held_out_part
from retfound_dist.stream.loader import MicroBatch, open_stream
from retfound_dist.train.engine.training_engine import TrainingEngine
from retfound_dist.train.ranks.collectives import RankGroup

# Not the run's seed, so that losses of runs with different seeds can be compared.
SEED = 0
"""Seed for the choice of images and for their masks."""


@dataclass(frozen=True)
class HeldOut:
    """This rank's share of the held-out images."""

    count: int
    """Number of images of all ranks."""
    batches: list[MicroBatch]
    """In host memory, page-locked if there is a GPU. Every rank has the same number of micro-batches.

    They are padded with weight 0.
    """

    def score(self, engine: TrainingEngine, model: MaskedAutoencoder, group: RankGroup) -> float:
        """Mean loss over all images; every rank must call it after the same step."""
        total = torch.zeros((), dtype=torch.float64, device=group.device)
        # At ZeRO 3 the engine gathers the weights, and nothing is compiled.
        forward = engine if engine.zero_stage == 3 else model
        model.eval()
        # The compiled parts would be compiled again, because `eval` and `no_grad` change their assumptions.
        with torch.no_grad(), uncompiled(model):
            for batch in self.batches:
                images, noise, weight = (
                    tensor.to(group.device, non_blocking=True)
                    for tensor in (batch.images, batch.noise, batch.weight)
                )
                total += (forward(images, noise) * weight).sum()
        model.train()
        return float(group.sum(total)) / self.count


def read_held_out(
    config: PretrainConfig, manifest: Manifest, group: RankGroup, micro_batch: int, patches: int
) -> HeldOut | None:
    """Read this rank's share; None if nothing is held out.

    Whole images without random crop or flip: `data.held_out_images` of them, or all if there are fewer.
    """
    part = held_out_part(config.data, manifest)
    if not part:
        return None
    count = min(config.data.held_out_images, sum(shard.samples for shard in manifest.part(part)))
    whole = replace(config.data, split=part, workers=0, crop_scale=(1.0, 1.0), flip=0.0)
    with open_stream(
        manifest,
        count,
        micro_batch=micro_batch,
        image_size=config.model.image_size,
        patches=patches,
        seed=SEED,
        world=group.world,
        stop_step=1,
        data=whole,
        counts_checked=True,
    ) as stream:
        return HeldOut(count, list(stream))
