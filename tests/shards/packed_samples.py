"""Samples of a packed set as plain webdataset reads them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import webdataset

from retfound_dist.formats.shard_set import Manifest


def samples_of(manifest: Manifest) -> list[dict[str, Any]]:
    """What plain webdataset gives, shard after shard."""
    urls = [f"{manifest.url}/{shard.name}" for shard in manifest.shards]
    return list(webdataset.WebDataset(urls, shardshuffle=False))


def read_images(out: Path, kind: str) -> dict[str, bytes]:
    """Key -> image file of every sample of a set."""

    found = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            for entry in tar:
                if entry.name.endswith(f".{kind}"):
                    found[entry.name.rsplit(".", 1)[0]] = io.BytesIO(tar.extractfile(entry).read()).getvalue()
    return found
