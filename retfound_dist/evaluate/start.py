"""The weights that a fine-tuning starts from: `none`, a checkpoint, a run, a weights file, a timm name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from retfound_dist import commit, storage
from retfound_dist.errors import ConfigError
from retfound_dist.model import hub
from retfound_dist.model.mae import Encoder, encoder_shape
from retfound_dist.model.weights import Weights, read_weights, split_part
from retfound_dist.schema import EvalModel

NONE = "none"


@dataclass(frozen=True)
class Start:
    """Starting weights, with the classifier's shape that follows from them."""

    url: str
    kind: str
    """`none`, `checkpoint` or `file`."""
    shape: Encoder
    image_size: int
    identity: str
    """sha256 of the commit or file: tells another checkpoint at the same URL."""
    weights: Weights | None = None

    def remark(self) -> str:
        """A line on how a file of others was read; empty where there is nothing to say."""
        return self.weights.remark if self.weights else ""

    def describe(self) -> dict[str, Any]:
        """What metrics.json says of it."""
        meta = self.weights.meta if self.weights else {}
        return {
            "url": self.url,
            "kind": self.kind,
            "step": meta.get("step"),
            "samples": meta.get("samples"),
            "sha256": self.identity,
            "image_size": self.image_size,
            "part": self.weights.part if self.weights else "",
            "notes": list(self.weights.notes) if self.weights else [],
            "encoder": {
                "width": self.shape.width,
                "depth": self.shape.depth,
                "heads": self.shape.heads,
                "patch": self.shape.patch,
            },
        }


def identity_of(url: str) -> str:
    """Tells whether weights at a URL are still the same: sha256 of the commit or file (remote file: size)."""
    if url == NONE:
        return NONE
    url, part = split_part(url)
    if part:
        return f"{identity_of(url)}#{part}"
    if not storage.exists(url) and hub.is_name(url):
        url = hub.weights_file(url)
    if commit.is_checkpoint(url):
        return storage.bytes_info(storage.read_bytes(storage.join(url, commit.COMMIT))).sha256
    if storage.is_local(url):
        return storage.file_info(storage.local_path(url)).sha256
    return f"{storage.size(url)} bytes"


def open_start(checkpoint: str, model: EvalModel) -> Start:
    """Read starting weights; a checkpoint's own shape and image size win over `model`."""
    if checkpoint == NONE:
        shape = encoder_shape(model.name)
        if model.image_size % shape.patch:
            raise ConfigError(
                f"model.image_size={model.image_size} is not a multiple of the patch of {model.name}: "
                f"choose a multiple of {shape.patch}"
            )
        return Start(NONE, NONE, shape, model.image_size, NONE)
    url = commit.resolve(checkpoint)
    weights = read_weights(url)
    kind = "checkpoint" if weights.meta else "file"
    return Start(url, kind, weights.shape, weights.image_size, identity_of(url), weights)


def run_of(checkpoint: str) -> str | None:
    """The URL of the run that a checkpoint belongs to, judged by its path."""
    run, found, _ = checkpoint.rstrip("/").rpartition("/checkpoints/")
    return run if found else None
