"""Checks `out.url`: does it have the same evaluation, another one, or something else?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from retfound_dist.config.schema import MULTICLASS, EvaluateConfig
from retfound_dist.errors import ConfigError, RecordError
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import StartingWeights
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.results.cached_evaluation import find_differences
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.formats import url_kinds
from retfound_dist.formats.score_files import ComparisonFile, SuiteFile, TaskNote
from retfound_dist.io import output_files, storage
from retfound_dist.records import json_reader

_OTHER_KINDS = (
    url_kinds.RUN,
    url_kinds.CHECKPOINT,
    url_kinds.UNCOMMITTED,
    url_kinds.SHARDS,
    url_kinds.UNFINISHED_SHARDS,
    url_kinds.TARS,
    url_kinds.MODEL_FOLDER,
)
_RESULT_KINDS = {url_kinds.EVALUATION, url_kinds.COMPARISON, url_kinds.SUITE}
Results = TypeVar("Results")
MAX_SHOWN = 4
"""Number of differences that are shown."""


def check_out_url(url: str, force: bool, expected: str = url_kinds.EVALUATION) -> None:
    """ConfigError where `out.url` belongs to something else, so that nothing is mixed with an evaluation.

    `expected`: the kind of results that will be written there, EVALUATION, COMPARISON or SUITE.
    """
    kind = url_kinds.kind_at(url)
    if kind in _OTHER_KINDS or kind in _RESULT_KINDS - {expected}:
        raise ConfigError(f"out.url={url} is {kind}: set out.url to another folder for {expected}")
    if not storage.is_folder(url) and storage.exists(url):
        raise ConfigError(f"out.url={url} is {kind}, but it must be a folder: give another out.url")
    # --force replaces only an evaluation: a run, a checkpoint or a shard set was refused above.
    if force or kind == expected:
        return
    names = set(storage.list_names(url))
    if evaluation_files.UNFINISHED in names or expected != url_kinds.EVALUATION:
        return
    # There is no UNFINISHED file, so files of these names are not from an interrupted evaluation.
    foreign = sorted(names & set(evaluation_files.FILES))
    if foreign:
        raise output_files.foreign_output_error(storage.join(url, foreign[0]), "evaluate", "out.url")


def read_matching_evaluation(
    start: StartingWeights, data: LabelledSet, config: EvaluateConfig, force: bool, say: Callable[[str], None]
) -> Evaluation | None:
    """`read_matching` of classes."""
    return read_matching(
        start, data, config, force, say, evaluation_files.read_metrics, evaluation_files.read
    )


def read_matching(
    start: StartingWeights,
    data: LabelledSet,
    config: EvaluateConfig,
    force: bool,
    say: Callable[[str], None],
    read_metrics: Callable[[str], dict[str, Any]],
    read_whole: Callable[[str, dict[str, Any]], Results | None],
) -> Results | None:
    """Read the evaluation at `out.url`, if it is of these weights, data and config, else None.

    None with `force`, too. ConfigError, with the differences, where another evaluation is there.
    RecordError where its metrics.json is damaged or from another program. `say` prints a line.
    `read_metrics` reads metrics.json, and `read_whole` the other files, of the kind of task.
    """
    url = config.out.url
    if force or not storage.exists(storage.join(url, evaluation_files.METRICS)):
        return None
    try:
        metrics = read_metrics(url)
    except RecordError:
        # The file of another kind of task has other keys, and is no damage.
        check_same_task(url, config)
        raise
    # By metrics.json alone: damage of its other files must not let another evaluation be replaced.
    differing = find_differences(metrics, start, data, config)
    if differing:
        raise different_results_error(url, "evaluation", differing)
    try:
        return read_whole(url, metrics)
    # By metrics.json it is the same evaluation, so making it again loses nothing.
    except RecordError as error:
        say(f"the evaluation is made again: {error}")
        return None


def check_rows(where: str, weights: Mapping[str, Any], force: bool) -> None:
    """ConfigError where the comparison at `where` has rows that the new one would lose.

    RecordError where it is damaged or from another program.
    """
    if force or not storage.exists(where):
        return
    remedy = "give another out.url, or compare again with --force"
    old_weights = json_reader.read(where, ComparisonFile, remedy)["config"]["weights"]
    missing = [name for name in old_weights if name not in weights]
    if missing:
        raise different_results_error(
            where, "comparison", [f"weights.{name} is missing in the new comparison" for name in missing]
        )


def check_sets(where: str, weights: Mapping[str, Any], sets: Mapping[str, Any], force: bool) -> None:
    """ConfigError where the suite at `where` has rows or sets that the new one would lose.

    RecordError where it is damaged or from another program.
    """
    if force or not storage.exists(where):
        return
    remedy = "give another out.url, or run the suite again with --force"
    old = json_reader.read(where, SuiteFile, remedy)["config"]
    missing = [f"weights.{name}" for name in old["weights"] if name not in weights]
    missing += [f"sets.{name}" for name in old["sets"] if name not in sets]
    if missing:
        differing = [f"{name} is missing in the new suite" for name in missing]
        raise different_results_error(where, "suite", differing)


def check_same_task(url: str, config: EvaluateConfig) -> None:
    """ConfigError where the evaluation at a URL is of another kind of task.

    Its files have other columns, and would be called damaged. RecordError where metrics.json is damaged.
    """
    tree = json_reader.read(storage.join(url, evaluation_files.METRICS), TaskNote, evaluation_files.REMEDY)
    kind = tree.get("task", {}).get("kind", MULTICLASS)
    if kind != config.task.kind:
        differing = [f"task.kind is {kind!r} there and {config.task.kind!r} here"]
        raise different_results_error(url, "evaluation", differing)


def different_results_error(url: str, name: str, differing: list[str]) -> ConfigError:
    """The error where other results are at a URL; `name`: evaluation, comparison or suite."""
    more = f", and {len(differing) - MAX_SHOWN} more" if len(differing) > MAX_SHOWN else ""
    return ConfigError(
        f"{url} holds another {name} ({'; '.join(differing[:MAX_SHOWN])}{more}): "
        "give another out.url, or replace it with --force"
    )
