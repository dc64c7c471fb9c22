"""Files of a shard set, changed and their digests put right, for the tests of damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retfound_dist.config.schema import PackConfig
from retfound_dist.io import storage
from tests.shards.pack_inputs import pack_config

Change = Callable[[dict[str, Any]], object]


def put_right(out: Path, name: str, data: bytes) -> None:
    """Write an index or a tar, and its size and digest into the manifest."""
    (out / name).write_bytes(data)
    tree = json.loads((out / "manifest.json").read_text())
    info = storage.bytes_info(data)
    for row in (part for shard in tree["shards"] for part in (shard, shard["index"]) if part["name"] == name):
        row.update(bytes=info.bytes, sha256=info.sha256)
    storage.write_json(f"{out}/manifest.json", tree)


def changed(data: bytes, change: Change) -> bytes:
    """A JSON file with something changed in it."""
    tree = json.loads(data)
    change(tree)
    return json.dumps(tree, separators=(",", ":")).encode() + b"\n"


def drop(key: str) -> Change:
    return lambda tree: tree.pop(key)


def put(key: str, value: Any) -> Change:
    return lambda tree: tree.update({key: value})


def config_for(packed: Path, out: Path) -> PackConfig:
    """The config the set was packed with, for its copy."""
    return pack_config(packed / "one", out)
