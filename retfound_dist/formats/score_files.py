"""Types of the JSON files that evaluations write and other commands read: scores, probes, a watch's history.

Each type names only the keys that its readers rely on.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from retfound_dist.formats.log_rows import StepNumber
from retfound_dist.records.json_reader import Count

_ALLOW_EXTRA_KEYS = with_config(ConfigDict(extra="allow"))
"""Keys of a later version stay in the tree."""
Span: TypeAlias = Annotated[list[float], Field(min_length=2, max_length=2)]
Tree = dict[str, Any]


def _check_scores(table: dict[str, Any]) -> dict[str, Any]:
    # pydantic cannot express "a number, but a table for this one key", so it is checked afterwards.
    if strange := [name for name, value in table.items() if isinstance(value, dict) and name != "undefined"]:
        raise ValueError(f"{strange[0]} is not a score")
    return table


Table: TypeAlias = Annotated[dict[str, float | Tree | None], AfterValidator(_check_scores)]
"""Score -> value. None: the score is undefined, and `undefined` says why."""


@_ALLOW_EXTRA_KEYS
class Intervals(TypedDict):
    """95 % intervals by definition and score; None: undefined."""

    macro: dict[str, Span | None]
    legacy: NotRequired[dict[str, Span | None]]


@_ALLOW_EXTRA_KEYS
class DataNote(TypedDict):
    """The labelled set of an evaluation."""

    path: str
    fingerprint: NotRequired[str]


@_ALLOW_EXTRA_KEYS
class ScoreFile(TypedDict):
    """The keys of metrics.json that lists, pages and cards of runs show."""

    macro: Table
    ci95: NotRequired[Intervals]
    data: NotRequired[DataNote]
    seeds: NotRequired[list[int]]


@_ALLOW_EXTRA_KEYS
class Bootstrap(TypedDict):
    """The units that were resampled for the intervals."""

    unit: str
    units: Count
    resamples: Count
    unit_names: NotRequired[list[str]]


@_ALLOW_EXTRA_KEYS
class WeightsNote(TypedDict):
    """The weights that were evaluated (`Start.describe`)."""

    url: str
    kind: str
    sha256: str
    step: NotRequired[StepNumber | None]
    samples: NotRequired[Count | None]
    image_size: NotRequired[Count]
    pretrained_on: NotRequired[Tree]


@_ALLOW_EXTRA_KEYS
class SeedRow(TypedDict):
    """The result of one seed."""

    seed: int
    epoch: Count
    legacy: Table
    macro: Table


@_ALLOW_EXTRA_KEYS
class SetNote(TypedDict):
    """A labelled set, identified by its content."""

    path: str
    fingerprint: str


@_ALLOW_EXTRA_KEYS
class MethodScores(TypedDict):
    """A probe's scores with one method."""

    macro: Table
    ci95: Intervals


@_ALLOW_EXTRA_KEYS
class TrainedNote(TypedDict):
    """How many parameters fine-tuning trained, of those of the classifier."""

    method: str
    trained_parameters: Count
    parameters: Count


@_ALLOW_EXTRA_KEYS
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


@_ALLOW_EXTRA_KEYS
class SplitNote(TypedDict):
    """Number of images in each part."""

    train: Count
    val: Count
    test: Count


@_ALLOW_EXTRA_KEYS
class ExternalNote(TypedDict):
    """Scores on the external set."""

    data: SetNote
    legacy: Table
    macro: Table
    ci95: Intervals
    per_class: dict[str, ClassRow]
    confusion: list[list[int]]


@_ALLOW_EXTRA_KEYS
class EvaluationFile(TypedDict):
    """metrics.json, as the evaluator reads it to continue or to redraw its page."""

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
    finetune: NotRequired[TrainedNote]


@_ALLOW_EXTRA_KEYS
class TaskNote(TypedDict):
    """The key of metrics.json that only tasks other than one class of several have."""

    task: NotRequired[Tree]


@_ALLOW_EXTRA_KEYS
class TaskSeedRow(TypedDict):
    """The result of one seed of a task."""

    seed: int
    epoch: Count
    scores: Table


@_ALLOW_EXTRA_KEYS
class TaskFile(TypedDict):
    """metrics.json of a task other than one class of several."""

    task: Tree
    scores: Table
    ci95: dict[str, Span | None]
    per_target: dict[str, Tree]
    seeds: Annotated[list[int], Field(min_length=1)]
    bootstrap: Bootstrap
    checkpoint: WeightsNote
    data: SetNote
    config: Tree
    per_seed: list[TaskSeedRow]
    split: SplitNote
    versions: dict[str, str]


@_ALLOW_EXTRA_KEYS
class EpochRow(TypedDict):
    """A line of history.jsonl. None: the value was not finite, or there was no validation part."""

    seed: int
    epoch: Count
    train_loss: float | None
    val_loss: float | None
    val_auroc: float | None


@_ALLOW_EXTRA_KEYS
class ProbeFile(TypedDict):
    """probe.json."""

    linear: NotRequired[MethodScores]
    knn: NotRequired[MethodScores]
    attentive: NotRequired[MethodScores]
    bootstrap: Bootstrap
    classes: list[str]
    checkpoint: WeightsNote
    data: SetNote
    probe: Tree
    images: NotRequired[Count]
    features_version: NotRequired[Count]


@_ALLOW_EXTRA_KEYS
class WatchStart(TypedDict):
    """The starting weights' probe in watch.json: the keys that pages show."""

    linear: NotRequired[MethodScores]
    attentive: NotRequired[MethodScores]


@_ALLOW_EXTRA_KEYS
class WatchRow(WatchStart):
    """A checkpoint's probe in watch.json."""

    step: StepNumber


@_ALLOW_EXTRA_KEYS
class WatchFile(TypedDict):
    """The keys of watch.json that pages of runs show."""

    rows: list[WatchRow]
    start: NotRequired[WatchStart | None]


@_ALLOW_EXTRA_KEYS
class ComparedConfig(TypedDict):
    """The settings of a comparison that the next one at the same URL looks at."""

    weights: dict[str, str]


@_ALLOW_EXTRA_KEYS
class ComparisonFile(TypedDict):
    """The keys of compare.json that the next comparison at the same URL looks at."""

    config: ComparedConfig


@_ALLOW_EXTRA_KEYS
class SuiteSettings(TypedDict):
    """The settings of a suite that the next one at the same URL looks at."""

    weights: dict[str, str]
    sets: dict[str, Tree]


@_ALLOW_EXTRA_KEYS
class SuiteFile(TypedDict):
    """The keys of suite.json that the next suite at the same URL looks at."""

    config: SuiteSettings
