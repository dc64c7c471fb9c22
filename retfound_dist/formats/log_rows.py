"""The lines of a run's logs: what each kind of line holds, and reading them.

metrics.jsonl     a logged step a line
events.jsonl      starts, ends, checkpoints, failures
anomalies.jsonl   steps that went wrong
alarms.jsonl      what `retfound watch` warns of, each once

A line that is not of its kind is left out, counted and named; it never ends the reading.
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
"""Unix seconds of a year that a calendar knows."""
Seconds = Annotated[float, Field(gt=0)]
_OPEN = with_config(ConfigDict(extra="allow"))
"""Keys of a later version stay in the row."""


@_OPEN
class AnyStep(TypedDict):
    """A line of metrics.jsonl of which no more is asked."""

    step: StepNumber


@_OPEN
class LossStep(AnyStep):
    """A line of metrics.jsonl for a curve of the loss."""

    loss: float | None


@_OPEN
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


@_OPEN
class Event(TypedDict):
    """A line of events.jsonl of which no more is asked."""

    event: str
    time: Moment


@_OPEN
class StartEvent(Event):
    """The ranks of a start are ready to train."""

    began: Moment
    ready: Moment
    step: StepNumber
    world_size: json_reader.Count
    zero_stage: int
    load_s: NotRequired[float]
    versions: NotRequired[dict[str, str]]


@_OPEN
class EndEvent(Event):
    """A start has ended as it should."""

    step: StepNumber
    reason: str


@_OPEN
class CheckpointEvent(Event):
    """A checkpoint was committed."""

    stall_s: float
    bytes_of_rank_0: json_reader.Count
    took_s: NotRequired[float]


def _event(row: Any) -> str:
    found = row.get("event") if isinstance(row, dict) else None
    return found if found in ("start", "end", "checkpoint") else "event"


AnyEvent: TypeAlias = Annotated[
    Annotated[StartEvent, Tag("start")]
    | Annotated[EndEvent, Tag("end")]
    | Annotated[CheckpointEvent, Tag("checkpoint")]
    | Annotated[Event, Tag("event")],
    Discriminator(_event),
]


@_OPEN
class Anomaly(TypedDict):
    """A line of anomalies.jsonl."""

    step: StepNumber
    kind: str
    loss: NotRequired[float | None]
    suspects: NotRequired[list[str]]


@_OPEN
class AlarmRow(TypedDict):
    """A line of alarms.jsonl."""

    message: Annotated[str, Field(min_length=1)]
    step: NotRequired[StepNumber]
    kind: NotRequired[str]
    method: NotRequired[str]
    metric: NotRequired[str]


KINDS: dict[str, Any] = {METRICS: StepRow, EVENTS: AnyEvent, ANOMALIES: Anomaly, ALARMS: AlarmRow}


def read_log(run_url: str, name: str, kind: Any = None) -> Lines[Row]:
    """One of a run's logs, as it was written; no lines where there is none.

    `kind`: of its lines; else what pages of runs show of them. StorageError where it cannot be read.
    """
    where = storage.join(run_url, name)
    try:
        return json_reader.read_lines(where, kind or KINDS[name])
    except RecordError as error:
        return Lines(where, unread=str(error))


def each_step_once(rows: list[Row]) -> list[Row]:
    """Logged steps in order: of a step done twice the later line counts."""
    steps = {row["step"]: row for row in rows}
    return [steps[step] for step in sorted(steps)]
