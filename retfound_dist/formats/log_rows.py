"""Defines the kinds of lines in a run's logs, and reads the logs.

metrics.jsonl     a logged step a line
events.jsonl      starts, ends, checkpoints, failures
anomalies.jsonl   steps that went wrong
alarms.jsonl      what `retfound watch` warns of, each once

A line that does not have the type of its log is skipped, counted and named. It is never an error.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypeAlias

from pydantic import ConfigDict, Discriminator, Field, Tag, with_config
from typing_extensions import TypedDict

from retfound_dist.errors import RecordError
from retfound_dist.io import storage
from retfound_dist.records import json_reader
from retfound_dist.records.json_reader import Lines

METRICS, EVENTS = "metrics.jsonl", "events.jsonl"
ANOMALIES, ALARMS = "anomalies.jsonl", "alarms.jsonl"
Row = dict[str, Any]
StepNumber = Annotated[int, Field(ge=0, lt=10**12)]
Moment = Annotated[float, Field(ge=0, lt=1e11)]
"""Unix seconds; up to the year 5138."""
# `datetime` raises from the year 10000 on, so a damaged number would break the page that shows it.
Seconds = Annotated[float, Field(gt=0)]
_ALLOW_EXTRA_KEYS = with_config(ConfigDict(extra="allow"))
"""Keys of a later version stay in the row."""


# Several types for one log: each reader requires only the keys that it uses. So a line of an older version,
# or with one damaged value, stays valid for readers of other keys.
@_ALLOW_EXTRA_KEYS
class AnyStep(TypedDict):
    """A line of metrics.jsonl of which only the step is required."""

    step: StepNumber


@_ALLOW_EXTRA_KEYS
class LossStep(AnyStep):
    """A line of metrics.jsonl for a loss curve."""

    loss: float | None


@_ALLOW_EXTRA_KEYS
class StepRow(LossStep):
    """A line of metrics.jsonl."""

    epoch: float
    samples: json_reader.Count
    lr: float | None
    grad_norm: float | None
    images_per_s: float
    data_wait_s: float
    step_s: Seconds
    world_size: json_reader.Count
    batch_digest: NotRequired[str]
    time: NotRequired[Moment]
    mfu: NotRequired[float | None]
    loss_mean: NotRequired[float | None]
    held_out_loss: NotRequired[float | None]
    skipped_steps: NotRequired[json_reader.Count]


@_ALLOW_EXTRA_KEYS
class Event(TypedDict):
    """A line of events.jsonl of which only the event and its time are required."""

    event: str
    time: Moment


@_ALLOW_EXTRA_KEYS
class StartEvent(Event):
    """A start of a run whose ranks are ready to train."""

    began: Moment
    ready: Moment
    step: StepNumber
    world_size: json_reader.Count
    zero_stage: int
    load_s: NotRequired[float]
    versions: NotRequired[dict[str, str]]


@_ALLOW_EXTRA_KEYS
class EndEvent(Event):
    """The end of a start that was not killed."""

    step: StepNumber
    reason: str


@_ALLOW_EXTRA_KEYS
class CheckpointEvent(Event):
    """A checkpoint was committed."""

    stall_s: float
    bytes_of_rank_0: json_reader.Count
    took_s: NotRequired[float]


def _event(row: Any) -> str:
    name = row.get("event") if isinstance(row, dict) else None
    # A later version may write events that this version does not know. Such a line is not damaged.
    return name if name in ("start", "end", "checkpoint") else "event"


AnyEvent: TypeAlias = Annotated[
    Annotated[StartEvent, Tag("start")]
    | Annotated[EndEvent, Tag("end")]
    | Annotated[CheckpointEvent, Tag("checkpoint")]
    | Annotated[Event, Tag("event")],
    Discriminator(_event),
]


@_ALLOW_EXTRA_KEYS
class Anomaly(TypedDict):
    """A line of anomalies.jsonl."""

    step: StepNumber
    kind: str
    loss: NotRequired[float | None]
    suspects: NotRequired[list[str]]


@_ALLOW_EXTRA_KEYS
class AlarmRow(TypedDict):
    """A line of alarms.jsonl."""

    message: Annotated[str, Field(min_length=1)]
    step: NotRequired[StepNumber]
    kind: NotRequired[str]
    method: NotRequired[str]
    metric: NotRequired[str]


KINDS: dict[str, Any] = {METRICS: StepRow, EVENTS: AnyEvent, ANOMALIES: Anomaly, ALARMS: AlarmRow}


def read_log(run_url: str, name: str, kind: Any = None) -> Lines[Row]:
    """Read one of a run's logs; no lines where there is none. StorageError where it cannot be read.

    `kind`: the type of its lines; None: the one that pages of runs show (`KINDS`).
    """
    where = storage.join(run_url, name)
    try:
        return json_reader.read_lines(where, kind or KINDS[name])
    except RecordError as error:
        # The log is too large to be read. Returned, not raised, because the run's other logs can be shown.
        return Lines(where, unread_reason=str(error))


def each_step_once(rows: list[Row]) -> list[Row]:
    """Logged steps in order. Where a step was logged twice, the later line counts."""
    # A run that was killed repeats the steps since its last checkpoint, and logs them again.
    steps = {row["step"]: row for row in rows}
    return [steps[step] for step in sorted(steps)]
