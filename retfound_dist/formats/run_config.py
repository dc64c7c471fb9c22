"""A run's `config.json`: its settings, and what it trains on and began from."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from retfound_dist.errors import FormatError, RecordError
from retfound_dist.io import storage
from retfound_dist.records import json_reader
from retfound_dist.records.json_reader import Count, Sha256

CONFIG = "config.json"
LIMIT = 16 << 20
"""Bytes of a config.json of ours: it has some kilobytes."""
REMEDY = (
    "put the `config` of one of the run's checkpoints/step_*/COMMIT.json in its place, or give this run a "
    "run.url of its own"
)
_OPEN = with_config(ConfigDict(extra="allow"))
Number: TypeAlias = Annotated[float, Field(ge=0)]


@_OPEN
class TrainSection(TypedDict, total=False):
    """`train`, as far as a run's folder is judged by it."""

    steps: Count
    epochs: Number
    global_batch: Count
    log_every: Count
    stop_at_step: Count


@_OPEN
class DataSection(TypedDict, total=False):
    """`data`, as far as a run's folder is judged by it."""

    shards: str
    split: str
    first_shards: Count


@_OPEN
class ModelSection(TypedDict, total=False):
    """`model`, as far as a run's folder is judged by it."""

    name: str
    init: str
    image_size: Count
    norm_pix_loss: bool


@_OPEN
class CheckpointSection(TypedDict, total=False):
    """`checkpoint`, as far as a run's folder is judged by it."""

    every_steps: Count


@_OPEN
class ShardSetNote(TypedDict):
    """`identity.describe_set`."""

    fingerprint: str
    shards: Count
    samples: Count


@_OPEN
class InitWeightsNote(TypedDict):
    """Which weights a run began from."""

    sha256: Sha256


def _has_length(train: TrainSection) -> TrainSection:
    if "steps" not in train and "epochs" not in train:
        raise ValueError("it has neither steps nor epochs")
    return train


@_OPEN
class _Rest(TypedDict, total=False):
    data: DataSection
    model: ModelSection
    checkpoint: CheckpointSection
    shard_set: ShardSetNote
    init_weights: InitWeightsNote


@_OPEN
class RunConfig(_Rest):
    """The whole of it; keys and sections of a later version stay in it."""

    train: Annotated[TrainSection, AfterValidator(_has_length)]


def read_config(run_url: str, remedy: str = REMEDY) -> dict[str, Any]:
    """A run's config. Raises StorageError where it cannot be read, RecordError where it is damaged or not of
    a run, FormatError where it is of another format."""
    where = storage.join(run_url, CONFIG)
    try:
        return dict(json_reader.read(where, RunConfig, remedy, limit=LIMIT))
    except FormatError:
        raise
    except RecordError as error:
        told = str(error).replace(" is damaged: ", " is damaged or of another program: ", 1)
        raise RecordError(told) from error
