"""A small shard set for stream tests, packed by the real packer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from retfound_dist.config.schema import PackConfig, PackOut, Source
from retfound_dist.formats.shard_set import Manifest
from shards.pack import pack


def write_images(folder: Path, count: int, size: tuple[int, int] = (48, 64)) -> None:
    """Smooth random pictures in two classes."""
    draw = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (6, 8), dtype=np.uint8))
        path = folder / ("AB"[number % 2]) / f"image_{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize(size[::-1], Image.Resampling.BICUBIC).save(path)


def make_set(folder: Path, count: int = 50, url: str = "", shard_mb: float = 0.02) -> Manifest:
    """Packs `count` images into several shards."""
    write_images(folder / "images", count)
    out = PackOut(url=url or str(folder / "set"), shard_mb=shard_mb, workers=1)
    return pack(PackConfig(source=Source(path=str(folder / "images")), out=out))
