"""Which part of a shard set a run is held against without ever training on it. Pure."""

from __future__ import annotations

from typing import Literal

from retfound_dist.config.schema import Data
from retfound_dist.errors import ConfigError
from retfound_dist.formats.shard_set import Manifest


def held_out_part(data: Data, manifest: Manifest) -> Literal["", "val", "test"]:
    """`val` or `test`, or empty where nothing is held out; parts are split by patient when they are packed.

    ConfigError when the part that was asked for is trained on, or is not there.
    """
    wanted = data.held_out
    there = {shard.split for shard in manifest.shards if shard.samples}
    if wanted == "none" or (wanted == "auto" and (data.split not in ("train", "auto") or "val" not in there)):
        return ""
    part: Literal["val", "test"] = "test" if wanted == "test" else "val"
    if data.split in ("all", part):
        raise ConfigError(
            f"data.held_out={part!r} is trained on with data.split={data.split!r}: set data.split='train'"
        )
    manifest.part(part)
    return part
