"""What stands where an evaluation or a comparison shall be written: the same, another, or something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from retfound_dist import kinds, outputs, records, storage
from retfound_dist.errors import ConfigError, RecordError
from retfound_dist.evaluate import results
from retfound_dist.evaluate.dataset import LabelledSet
from retfound_dist.evaluate.results import Evaluation
from retfound_dist.evaluate.same import changes
from retfound_dist.evaluate.start import Start
from retfound_dist.schema import EvaluateConfig
from retfound_dist.scorefiles import ComparisonFile

_OTHERS = (
    kinds.RUN,
    kinds.CHECKPOINT,
    kinds.UNCOMMITTED,
    kinds.SHARDS,
    kinds.UNFINISHED_SHARDS,
    kinds.TARS,
    kinds.MODEL_FOLDER,
)
FEW = 4
"""Differences that are shown."""


def check_place(url: str, force: bool, *, comparison: bool = False) -> None:
    """ConfigError where `out.url` belongs to something else: nothing is mixed with an evaluation."""
    kind, own = kinds.kind_at(url), kinds.COMPARISON if comparison else kinds.EVALUATION
    if kind in _OTHERS or kind in {kinds.EVALUATION, kinds.COMPARISON} - {own}:
        raise ConfigError(f"out.url={url} is {kind}: give {own} a folder of its own")
    if not storage.is_folder(url) and storage.exists(url):
        raise ConfigError(f"out.url={url} is {kind}, a folder is wanted: give another out.url")
    if force or kind == own:
        return
    names = set(storage.list_names(url))
    if results.UNFINISHED in names or comparison:
        return
    strange = sorted(names & set(results.FILES))
    if strange:
        raise outputs.not_ours(storage.join(url, strange[0]), "evaluate", "out.url")


def held_evaluation(
    start: Start, data: LabelledSet, config: EvaluateConfig, force: bool, say: Callable[[str], None]
) -> Evaluation | None:
    """The same evaluation where it is whole already; None where it is to be made.

    ConfigError, with the difference, where another one stands there and `force` is not given; RecordError
    where its metrics.json is damaged or of another program.
    """
    url = config.out.url
    if force or not storage.exists(storage.join(url, results.METRICS)):
        return None
    found = changes(results.read_metrics(url), start, data, config)
    if found:
        raise ConfigError(_refusal(url, "evaluation", found))
    try:
        return results.read(url)
    except RecordError as error:  # what was to be seen of it by metrics.json is the same: nothing is lost
        say(f"it is made again: {error}")
        return None


def check_rows(where: str, weights: Mapping[str, Any], force: bool) -> None:
    """ConfigError where a comparison stands at `where` with rows that the new one would not show.

    RecordError where it is damaged or of another program.
    """
    if force or not storage.exists(where):
        return
    remedy = "give another out.url, or compare again with --force"
    held = records.read(where, ComparisonFile, remedy)["config"]["weights"]
    lost = [name for name in held if name not in weights]
    if lost:
        raise ConfigError(
            _refusal(where, "comparison", [f"weights.{name} is in that one and not in this" for name in lost])
        )


def _refusal(url: str, what: str, found: list[str]) -> str:
    more = f", and {len(found) - FEW} more" if len(found) > FEW else ""
    return (
        f"{url} holds another {what} ({'; '.join(found[:FEW])}{more}): "
        "give another out.url, or replace it with --force"
    )
