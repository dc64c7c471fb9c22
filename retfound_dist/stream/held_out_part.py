"""Chooses the part of a shard set for the held-out loss, on which a run never trains."""

from __future__ import annotations

from typing import Literal

from retfound_dist.config.schema import Data
from retfound_dist.errors import ConfigError
from retfound_dist.formats.shard_set import Manifest


def held_out_part(data: Data, manifest: Manifest) -> Literal["", "val", "test"]:
    """`val` or `test`; empty if nothing is held out. Packing has split the parts by patient.

    ConfigError if the requested part is trained on; ManifestError if the set does not have it.
    """
    wanted = data.held_out
    parts = {shard.split for shard in manifest.shards if shard.samples}
    if wanted == "none" or (wanted == "auto" and (data.split not in ("train", "auto") or "val" not in parts)):
        return ""
    part: Literal["val", "test"] = "test" if wanted == "test" else "val"
    if data.split in ("all", part):
        raise ConfigError(
            f"data.held_out={part!r} is trained on with data.split={data.split!r}: set data.split='train'"
        )
    # Called only for its ManifestError: the set must have the part.
    manifest.part(part)
    return part
