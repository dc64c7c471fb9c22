"""Opens the weights that a fine-tuning starts from: `none`, a checkpoint, a run, a file, a timm name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from retfound_dist.config.schema import EvalModel
from retfound_dist.errors import ConfigError, WeightsError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.content_identity import IdentityCache
from retfound_dist.io import storage
from retfound_dist.model.mae import EncoderShape, encoder_shape
from retfound_dist.model.weights import timm_hub
from retfound_dist.model.weights.weight_files import Weights, read_weights, split_part

NONE = "none"
FACTS_VERSION = 2
"""Increased whenever other facts are remembered than before, so that older memories are not used."""
MEMORY = "weights.json"
"""Where a comparison or a watch remembers facts of weights, beside its results."""


class LazyWeights:
    """Weights that are read only when they are first used."""

    def __init__(self, url: str, sha256: str, weights: Weights | None = None) -> None:
        self._url, self._sha256, self._weights = url, sha256, weights

    def get(self) -> Weights:
        """The weights. Raises WeightsError if the file has changed in the meantime."""
        if self._weights is None:
            weights = read_weights(self._url)
            # The results are kept under the first sha256: other weights must not be scored under that name.
            if weights.sha256 != self._sha256:
                raise WeightsError(f"{self._url} holds other weights than a moment ago: start again")
            self._weights = weights
        return self._weights


@dataclass(frozen=True)
class StartingWeights:
    """Starting weights, with the classifier's shape that follows from them."""

    url: str
    kind: str
    """`none`, `checkpoint` or `file`."""
    shape: EncoderShape
    image_size: int
    identity: str
    """sha256 of the weights' file (and its `#PART`, where one is named): the same at any other URL, another
    one for other weights at this URL."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """`Weights.meta`."""
    lazy_weights: LazyWeights | None = None
    part: str = ""
    """`Weights.part`."""
    notes: tuple[str, ...] = ()
    """`Weights.notes`."""
    remarked: str = ""
    """`Weights.remark`."""

    @property
    def weights(self) -> Weights | None:
        """The weights, read now unless they were; None where the start is `none`."""
        return self.lazy_weights.get() if self.lazy_weights else None

    def remark(self) -> str:
        """A line on how a foreign file was read; empty where there is nothing to say."""
        return self.remarked

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
            "encoder": asdict(self.shape),
        }


def open_start(checkpoint: str, model: EvalModel, memory: IdentityCache | None = None) -> StartingWeights:
    """Starting weights; a checkpoint's own shape and image size win over `model`.

    They are read now, unless the `memory` knows the file: then when they are needed.
    """
    if checkpoint == NONE:
        shape = encoder_shape(model.name)
        if model.image_size % shape.patch:
            raise ConfigError(
                f"model.image_size={model.image_size} is not a multiple of the patch of {model.name}: "
                f"choose a multiple of {shape.patch}"
            )
        return StartingWeights(NONE, NONE, shape, model.image_size, NONE)
    url, memory = checkpoint_folder.resolve(checkpoint), memory or IdentityCache()
    mark = _mark(url)
    facts, weights = memory.recall(url, mark), None
    if facts is None:
        weights = read_weights(url)
        facts = {
            "sha256": weights.sha256,
            "encoder": asdict(weights.shape),
            "image_size": weights.image_size,
            "meta": weights.meta,
            "part": weights.part,
            "notes": list(weights.notes),
            "remark": weights.remark,
        }
        # A file may be replaced while it is read: then nobody knows which of the two the facts belong to.
        if _mark(url) == mark:
            memory.remember(url, mark, facts)
    _, part = split_part(url)
    return StartingWeights(
        url=url,
        kind="checkpoint" if facts["meta"] else "file",
        shape=EncoderShape(**facts["encoder"]),
        image_size=facts["image_size"],
        # One file may hold several encoders, such as teacher and student: the part tells them apart.
        identity=f"{facts['sha256']}#{part}" if part else facts["sha256"],
        meta=facts["meta"],
        lazy_weights=LazyWeights(url, facts["sha256"], weights),
        part=facts["part"],
        notes=tuple(facts["notes"]),
        remarked=facts["remark"],
    )


def checkpoint_identity(url: str) -> str:
    """sha256 of a committed checkpoint's weights, as its commit says; CheckpointError where it holds none."""
    commit = checkpoint_folder.read_commit(url)
    return commit.files[commit.weights].sha256


def _mark(url: str) -> str:
    """Says without a download whether a file may have changed: of a checkpoint its weights' sha256."""
    if checkpoint_folder.is_checkpoint(url):
        # A commit names the sha256 of its weights: surer than a date or an ETag, and as cheap to read.
        mark = checkpoint_identity(url)
    else:
        url, _ = split_part(url)
        if not storage.exists(url):
            url = timm_hub.weights_file(url) if timm_hub.is_timm_model(url) else ""
        mark = storage.version_mark(url) if url else ""
    return f"{FACTS_VERSION} {mark}" if mark else ""


def run_url(checkpoint: str) -> str | None:
    """The URL of the run that a checkpoint belongs to, judged by its path."""
    run, separator, _ = checkpoint.rstrip("/").rpartition("/checkpoints/")
    return run if separator else None
