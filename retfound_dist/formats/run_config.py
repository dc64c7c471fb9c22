"""Reads a run's `config.json`: its settings, its shard set and the weights it began from.

Only the keys that other commands rely on have types here. `config.schema` checks all settings when a run
starts.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from retfound_dist.errors import FormatError, RecordError
from retfound_dist.io import storage
from retfound_dist.records import json_reader
from retfound_dist.records.json_reader import Count, Sha256

CONFIG = "config.json"
MAX_CONFIG_BYTES = 16 << 20
"""Most bytes of a config.json. A run's has some kilobytes."""
# `retfound runs` also reads folders of other programs, where a file of this name may have gigabytes.
REMEDY = (
    "replace it by the `config` of one of the run's checkpoints/step_*/COMMIT.json, or start a new run at "
    "another run.url"
)
_ALLOW_EXTRA_KEYS = with_config(ConfigDict(extra="allow"))
Number: TypeAlias = Annotated[float, Field(ge=0)]


@_ALLOW_EXTRA_KEYS
class TrainSection(TypedDict, total=False):
    """The keys of `train` that other commands rely on."""

    steps: Count
    epochs: Number
    global_batch: Count
    log_every: Count
    stop_at_step: Count


@_ALLOW_EXTRA_KEYS
class DataSection(TypedDict, total=False):
    """The keys of `data` that other commands rely on."""

    shards: str
    split: str
    first_shards: Count


@_ALLOW_EXTRA_KEYS
class ModelSection(TypedDict, total=False):
    """The keys of `model` that other commands rely on."""

    name: str
    init: str
    image_size: Count
    norm_pix_loss: bool


@_ALLOW_EXTRA_KEYS
class CheckpointSection(TypedDict, total=False):
    """The keys of `checkpoint` that other commands rely on."""

    every_steps: Count


@_ALLOW_EXTRA_KEYS
class ShardSetNote(TypedDict):
    """The shard set a run trains on: `content_identity.describe_set`."""

    fingerprint: str
    shards: Count
    samples: Count


@_ALLOW_EXTRA_KEYS
class InitWeightsNote(TypedDict):
    """The weights a run began from."""

    sha256: Sha256


def _has_length(train: TrainSection) -> TrainSection:
    # Models of Hugging Face and timm have a config.json too. This distinguishes a run's folder from theirs.
    if "steps" not in train and "epochs" not in train:
        raise ValueError("it has neither steps nor epochs")
    return train


@_ALLOW_EXTRA_KEYS
class _OptionalSections(TypedDict, total=False):
    data: DataSection
    model: ModelSection
    checkpoint: CheckpointSection
    shard_set: ShardSetNote
    init_weights: InitWeightsNote


@_ALLOW_EXTRA_KEYS
class RunConfig(_OptionalSections):
    """The whole file. Keys and sections of a later version stay in it."""

    train: Annotated[TrainSection, AfterValidator(_has_length)]


def read_config(run_url: str, remedy: str = REMEDY) -> dict[str, Any]:
    """Read a run's config.

    StorageError where it cannot be read, RecordError where it is damaged or not a run's, FormatError where it
    is of another format. `remedy`: what the error tells a person to do.
    """
    where = storage.join(run_url, CONFIG)
    try:
        return dict(json_reader.read(where, RunConfig, remedy, limit=MAX_CONFIG_BYTES))
    except FormatError:
        raise
    except RecordError as error:
        message = str(error).replace(" is damaged: ", " is damaged or of another program: ", 1)
        raise RecordError(message) from error
