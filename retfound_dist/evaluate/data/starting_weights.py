"""Opens the weights that a fine-tuning starts from: `none`, a checkpoint, a run, a file or a timm name."""

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
"""Increase it when the cached facts change, so that older cache files are not used."""
WEIGHTS_CACHE = "weights.json"
"""Cache file of a comparison or a watch for facts about weights, beside its results."""


class LazyWeights:
    """Weights that are read when they are first used."""

    def __init__(self, url: str, sha256: str, weights: Weights | None = None) -> None:
        self._url, self._sha256, self._weights = url, sha256, weights

    def get(self) -> Weights:
        """The weights. Raises WeightsError if the file has changed in the meantime."""
        if self._weights is None:
            weights = read_weights(self._url)
            # Results are stored under the first sha256: other weights must not be scored under it.
            if weights.sha256 != self._sha256:
                raise WeightsError(f"{self._url} has changed since it was first read: run the command again")
            self._weights = weights
        return self._weights


@dataclass(frozen=True)
class StartingWeights:
    """Starting weights, and the shape of a classifier that fits them."""

    url: str
    kind: str
    """`none`, `checkpoint` or `file`."""
    shape: EncoderShape
    image_size: int
    identity: str
    """sha256 of the weights file, and its `#PART` where one is named. It does not depend on the URL."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """`Weights.meta`."""
    lazy_weights: LazyWeights | None = None
    part: str = ""
    """`Weights.part`."""
    notes: tuple[str, ...] = ()
    """`Weights.notes`."""
    remark: str = ""
    """`Weights.remark`: how a foreign file was read."""

    @property
    def weights(self) -> Weights | None:
        """The weights, which are read at the first use; None where the start is `none`."""
        return self.lazy_weights.get() if self.lazy_weights else None

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


def open_starting_weights(
    checkpoint: str, model: EvalModel, identity_cache: IdentityCache | None = None
) -> StartingWeights:
    """Opens starting weights. The shape and image size of a checkpoint are used instead of those of `model`.

    The weights are read now, or at their first use where `identity_cache` knows the file.
    """
    if checkpoint == NONE:
        shape = encoder_shape(model.name)
        if model.image_size % shape.patch:
            raise ConfigError(
                f"model.image_size={model.image_size} is not a multiple of the patch of {model.name}: "
                f"choose a multiple of {shape.patch}"
            )
        return StartingWeights(NONE, NONE, shape, model.image_size, NONE)
    url, identity_cache = checkpoint_folder.resolve(checkpoint), identity_cache or IdentityCache()
    mark = _version_mark(url)
    facts, weights = identity_cache.get(url, mark), None
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
        # If the file was replaced while it was read, the facts may belong to the old or the new file.
        if _version_mark(url) == mark:
            identity_cache.put(url, mark, facts)
    _, part = split_part(url)
    return StartingWeights(
        url=url,
        kind="checkpoint" if facts["meta"] else "file",
        shape=EncoderShape(**facts["encoder"]),
        image_size=facts["image_size"],
        # One file may hold several encoders, such as teacher and student, so the part is in the identity.
        identity=f"{facts['sha256']}#{part}" if part else facts["sha256"],
        meta=facts["meta"],
        lazy_weights=LazyWeights(url, facts["sha256"], weights),
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
        url, _ = split_part(url)
        if not storage.exists(url):
            url = timm_hub.weights_file(url) if timm_hub.is_timm_model(url) else ""
        mark = storage.version_mark(url) if url else ""
    return f"{FACTS_VERSION} {mark}" if mark else ""


def run_url(checkpoint: str) -> str | None:
    """The URL of the run that a checkpoint belongs to, taken from its path; None where it names no run."""
    run, separator, _ = checkpoint.rstrip("/").rpartition("/checkpoints/")
    return run if separator else None
