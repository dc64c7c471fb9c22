"""The JSON files of evaluations, as far as other commands read them: scores, probes, a watch's history."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from retfound_dist.formats.log_rows import StepNumber
from retfound_dist.records.json_reader import Count

_OPEN = with_config(ConfigDict(extra="allow"))
"""Keys of a later version stay in the tree."""
Span: TypeAlias = Annotated[list[float], Field(min_length=2, max_length=2)]
Tree = dict[str, Any]


def _scores_alone(table: dict[str, Any]) -> dict[str, Any]:
    if strange := [name for name, value in table.items() if isinstance(value, dict) and name != "undefined"]:
        raise ValueError(f"{strange[0]} is no score")
    return table


Table: TypeAlias = Annotated[dict[str, float | Tree | None], AfterValidator(_scores_alone)]
"""Score -> value; None: undefined, then `undefined` says why."""


@_OPEN
class Intervals(TypedDict):
    """95 % intervals by definition and score; None: undefined."""

    macro: dict[str, Span | None]
    legacy: NotRequired[dict[str, Span | None]]


@_OPEN
class DataNote(TypedDict):
    """Which labelled set it was."""

    path: str
    fingerprint: NotRequired[str]


@_OPEN
class ScoreFile(TypedDict):
    """metrics.json, as far as lists, pages and cards of runs show it."""

    macro: Table
    ci95: NotRequired[Intervals]
    data: NotRequired[DataNote]
    seeds: NotRequired[list[int]]


@_OPEN
class Bootstrap(TypedDict):
    """What intervals were drawn over."""

    unit: str
    units: Count
    resamples: Count
    unit_names: NotRequired[list[str]]


@_OPEN
class WeightsNote(TypedDict):
    """`Start.describe`: which weights it was."""

    url: str
    kind: str
    sha256: str
    step: NotRequired[StepNumber | None]
    samples: NotRequired[Count | None]
    image_size: NotRequired[Count]
    pretrained_on: NotRequired[Tree]


@_OPEN
class SeedRow(TypedDict):
    """What one seed came to."""

    seed: int
    epoch: Count
    legacy: Table
    macro: Table


@_OPEN
class SetNote(TypedDict):
    """Which labelled set, known by its content."""

    path: str
    fingerprint: str


@_OPEN
class MethodScores(TypedDict):
    """A probe's scores by one method."""

    macro: Table
    ci95: Intervals


@_OPEN
class ClassRow(TypedDict):
    """The scores of one class."""

    n: Count
    predicted: NotRequired[Count]
    sensitivity: float | None
    specificity: float | None
    precision: float | None
    f1: float | None
    auroc: float | None
    aupr: float | None


@_OPEN
class SplitNote(TypedDict):
    """How many images are in each part."""

    train: Count
    val: Count
    test: Count


@_OPEN
class ExternalNote(TypedDict):
    """Of the external set that was tested too."""

    data: SetNote
    legacy: Table
    macro: Table
    ci95: Intervals
    per_class: dict[str, ClassRow]
    confusion: list[list[int]]


@_OPEN
class EvaluationFile(TypedDict):
    """metrics.json, as the evaluator reads it back."""

    legacy: Table
    macro: Table
    per_class: dict[str, ClassRow]
    confusion: list[list[int]]
    ci95: Intervals
    classes: list[str]
    seeds: Annotated[list[int], Field(min_length=1)]
    bootstrap: Bootstrap
    checkpoint: WeightsNote
    data: SetNote
    config: Tree
    per_seed: list[SeedRow]
    split: SplitNote
    versions: dict[str, str]
    external: NotRequired[ExternalNote]
    probe: NotRequired[dict[str, MethodScores] | None]
    tuning: NotRequired[Any]


@_OPEN
class EpochRow(TypedDict):
    """A line of history.jsonl; None: not finite, or there was nothing to validate on."""

    seed: int
    epoch: Count
    train_loss: float | None
    val_loss: float | None
    val_auroc: float | None


@_OPEN
class ProbeFile(TypedDict):
    """probe.json."""

    linear: MethodScores
    knn: MethodScores
    bootstrap: Bootstrap
    classes: list[str]
    checkpoint: WeightsNote
    data: SetNote
    probe: Tree
    images: NotRequired[Count]


@_OPEN
class WatchStart(TypedDict):
    """What a watch keeps of the starting weights' probe, as far as pages show it."""

    linear: MethodScores


@_OPEN
class WatchRow(WatchStart):
    """What it keeps of a checkpoint's."""

    step: StepNumber


@_OPEN
class WatchFile(TypedDict):
    """watch.json, as far as pages of runs show it."""

    rows: list[WatchRow]
    start: NotRequired[WatchStart | None]


@_OPEN
class ComparedConfig(TypedDict):
    """The settings of a comparison, as far as another one on its place looks at them."""

    weights: dict[str, str]


@_OPEN
class ComparisonFile(TypedDict):
    """compare.json, as far as another one on its place looks at it."""

    config: ComparedConfig
