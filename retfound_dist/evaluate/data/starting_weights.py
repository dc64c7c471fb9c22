"""Opens the weights that a fine-tuning starts from: `none`, a run, a checkpoint, a file, a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from retfound_dist.config.schema import OWN, EvalModel
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.content_identity import IdentityCache
from retfound_dist.io import storage
from retfound_dist.model.backbones.backbone import Backbone
from retfound_dist.model.backbones.opening import backbone_from, local_file, open_model, random_backbone
from retfound_dist.model.backbones.plain_vit import PlainVit
from retfound_dist.model.weights.weight_files import Weights, split_part

NONE = "none"
FACTS_VERSION = 4
"""Increase it when the cached facts change, so that older cache files are not used."""
WEIGHTS_CACHE = "weights.json"
"""Cache file of a comparison or a watch for facts about weights, beside its results."""


@dataclass(frozen=True)
class StartingWeights:
    """Starting weights, as a backbone that a classifier can be built on."""

    url: str
    kind: str
    """`none`, `checkpoint` or `file`."""
    backbone: Backbone
    identity: str
    """sha256 of the weights file, and its `#PART` where one is named. It does not depend on the URL."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """`Weights.meta`."""
    part: str = ""
    """`Weights.part`."""
    notes: tuple[str, ...] = ()
    """`Weights.notes`."""
    remark: str = ""
    """`Weights.remark`: how a foreign file was read."""

    @property
    def image_size(self) -> int:
        """Side of the input in pixels."""
        return self.backbone.image_size

    @property
    def weights(self) -> Weights | None:
        """The weights of a plain ViT under MAE's names, read at the first use; None for all others."""
        return self.backbone.weights if isinstance(self.backbone, PlainVit) else None

    def at_size(self, image_size: int) -> StartingWeights:
        """The same weights at another input size."""
        return replace(self, backbone=self.backbone.at_size(image_size))

    def describe(self) -> dict[str, Any]:
        """The entry for metrics.json."""
        return {
            "url": self.url,
            "kind": self.kind,
            "step": self.meta.get("step"),
            "samples": self.meta.get("samples"),
            "sha256": self.identity,
            "image_size": self.image_size,
            "part": self.part,
            "notes": list(self.notes),
            "encoder": self.backbone.architecture(),
            "backbone": self.backbone.facts.to_json(),
        }


def open_starting_weights(
    checkpoint: str, model: EvalModel, identity_cache: IdentityCache | None = None
) -> StartingWeights:
    """Opens starting weights at `model.image_size`, or at their own. WeightsError if they cannot be used.

    The weights are read now, or at their first use where `identity_cache` knows the file.
    """
    size = None if model.image_size == OWN else model.image_size
    if checkpoint == NONE:
        return StartingWeights(NONE, NONE, random_backbone(model.name, size), NONE)
    checkpoint = checkpoint_folder.resolve(checkpoint)
    cache = identity_cache or IdentityCache()
    mark = _version_mark(checkpoint)
    facts, opened = cache.get(checkpoint, mark), None
    if facts is None:
        opened = open_model(checkpoint)
        facts = opened.to_json()
        # If the file was replaced while it was read, the facts may belong to the old or the new file.
        if _version_mark(checkpoint) == mark:
            cache.put(checkpoint, mark, facts)
    _, part = split_part(checkpoint)
    return StartingWeights(
        url=checkpoint,
        kind="checkpoint" if facts["meta"] else "file",
        backbone=backbone_from(checkpoint, facts, opened, size),
        # One file may hold several encoders, such as teacher and student, so the part is in the identity.
        identity=f"{facts['sha256']}#{part}" if part else facts["sha256"],
        meta=facts["meta"],
        part=facts["part"],
        notes=tuple(facts["notes"]),
        remark=facts["remark"],
    )


def checkpoint_identity(url: str) -> str:
    """sha256 of the weights of a checkpoint, from its COMMIT.json; CheckpointError where it has none."""
    commit = checkpoint_folder.read_commit(url)
    return commit.files[commit.weights].sha256


def _version_mark(url: str) -> str:
    """A text that changes with the file, made without a download; empty where there is no such mark."""
    if checkpoint_folder.is_checkpoint(url):
        # COMMIT.json has the sha256 of the weights. It is safer than a date or an ETag, and as cheap to read.
        mark = checkpoint_identity(url)
    else:
        url = local_file(url)
        mark = storage.version_mark(url) if url else ""
    return f"{FACTS_VERSION} {mark}" if mark else ""


def run_url(checkpoint: str) -> str | None:
    """The URL of the run that a checkpoint belongs to, taken from its path; None where it names no run."""
    run, separator, _ = checkpoint.rstrip("/").rpartition("/checkpoints/")
    return run if separator else None
