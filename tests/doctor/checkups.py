"""A checkup of one rank on a small shard set, for the tests of `retfound doctor`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.doctor.checkup import Checkup
from retfound_dist.formats.shard_set import read_manifest
from retfound_dist.runtime.world import World
from retfound_dist.train.ranks.collectives import RankGroup
from tests.stream.stream_inputs import make_set
from tests.train.launching import SMALL

CONFIG = "configs/demo/pretrain.toml"


def settings(folder: Path) -> list[str]:
    """Overrides of a small run in a folder, on a set that is made there."""
    if not (folder / "set").exists():
        make_set(folder)
    return [*SMALL, f"data.shards={folder / 'set'}", f"run.url={folder / 'runs' / 'one'}"]


def small_checkup(folder: Path, *overrides: str, minutes: float = 0.1, **world: Any) -> Checkup:
    """The checkup; `world`: the place of this rank among others, which do not exist."""
    (folder / "runs").mkdir(exist_ok=True)
    config, _ = load(PretrainConfig, CONFIG, [*settings(folder), *overrides])
    group = RankGroup(World(), torch.device("cpu"))
    checkup = Checkup(
        config,
        CONFIG,
        [*settings(folder), *overrides],
        read_manifest(config.data.shards),
        group,
        f"{config.run.url}-doctor-0000abcd",
        minutes,
    )
    return replace(checkup, group=replace(group, world=replace(group.world, **world))) if world else checkup
