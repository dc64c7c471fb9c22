"""A small shard set for stream tests, packed by the real packer, and readers of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retfound_dist.config.schema import Data, PackConfig, PackOut, Source
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.runtime.world import World
from retfound_dist.stream.augment import Augment
from retfound_dist.stream.batch_plan import make_batch_layout
from retfound_dist.stream.loader import make_plan
from retfound_dist.stream.stream_spec import StreamSpec
from shards.pack import pack

PRINT_BATCHES = """
import sys
from retfound_dist.errors import RetfoundError
from retfound_dist.stream import open_stream
try:
    with open_stream(sys.argv[1], global_batch=8, workers=2, image_size=128, stop_step=6) as stream:
        for batch in stream:
            print(batch.step, f"{batch.digest:x}", int(batch.images.sum()), flush=True)
except RetfoundError as error:
    print(error)
"""


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


def make_spec(
    manifest: Manifest,
    temporary_folder: str,
    *,
    global_batch: int = 8,
    stop_step: int = 3,
    world: World | None = None,
    **settings: Any,
) -> StreamSpec:
    """One rank's stream of small images with four patches; `settings` are those of the config's `[data]`."""
    data = Data(shards=manifest.url, **{"window_shards": 2, **settings})
    world = world or World()
    return StreamSpec(
        manifest,
        data,
        make_plan(manifest, data, global_batch, seed=5),
        make_batch_layout(global_batch, world.size, global_batch),
        Augment((28, 28), 4, data.crop_scale, data.crop_ratio, data.flip),
        world,
        stop_step,
        data.cache_dir or temporary_folder,
        workers=0 if data.workers == "auto" else data.workers,
    )


def read_with_shm(url: str, folder: Path, mount_options: str) -> list[str]:
    """What a reader with two loader processes prints, in a mount namespace where /dev/shm is a disk of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small /dev/shm")
    script = folder / "print_batches.py"
    script.write_text(PRINT_BATCHES)
    command = 'mount -t tmpfs -o "$0" tmpfs /dev/shm && exec "$@"'
    reader = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, mount_options, sys.executable, str(script), url],
        capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "Traceback" not in reader.stderr
    return reader.stdout.splitlines()
