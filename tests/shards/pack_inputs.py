"""Small images, folders of them and configs, for the tests of packing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retfound_dist.config.loading import build
from retfound_dist.config.schema import PackConfig


def scan_pixels(seed: int = 0, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A bright band on a dark ground with speckle, other in place for each seed."""
    rng = np.random.default_rng(seed)
    rows = np.arange(height)[:, None]
    middle = height * (0.3 + 0.4 * rng.random()) + 4 * np.sin(np.arange(width) / 9 + seed)[None]
    band = 180 * np.exp(-(((rows - middle) / (height / 8)) ** 2))
    return np.clip(band + rng.gamma(2.0, 12.0, (height, width)), 0, 255).astype(np.uint8)


def write_image(path: Path, seed: int = 0, height: int = 48, width: int = 64, **options: Any) -> Path:
    """One grey image in the format its name asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scan_pixels(seed, height, width)).save(path, **options)
    return path


def write_classes(root: Path, counts: dict[str, int], extension: str = "jpg") -> Path:
    """Class folders with so many images each."""
    for place, (label, count) in enumerate(counts.items()):
        for number in range(count):
            write_image(root / label / f"{label.lower()}_{number:03d}.{extension}", 1000 * place + number)
    return root


def pack_config(source: Path | str, url: Path | str, /, **sections: dict[str, Any]) -> PackConfig:
    """A config that packs a folder into small shards in this process; sections override."""
    tree: dict[str, Any] = {
        "source": {"kind": "folder", "path": str(source)},
        "out": {"url": str(url), "shard_mb": 0.02, "workers": 1},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    return build(PackConfig, tree, "test")


def file_bytes(folder: Path) -> dict[str, bytes]:
    """Name and content of every file in a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
