"""Checks what exists at `out.url`: the same evaluation, another one, or something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from retfound_dist.config.schema import EvaluateConfig
from retfound_dist.errors import ConfigError, RecordError
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import StartingWeights
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.results.cached_evaluation import changes
from retfound_dist.evaluate.results.evaluation_files import Evaluation
from retfound_dist.formats import url_kinds
from retfound_dist.formats.score_files import ComparisonFile
from retfound_dist.io import output_files, storage
from retfound_dist.records import json_reader

_OTHERS = (
    url_kinds.RUN,
    url_kinds.CHECKPOINT,
    url_kinds.UNCOMMITTED,
    url_kinds.SHARDS,
    url_kinds.UNFINISHED_SHARDS,
    url_kinds.TARS,
    url_kinds.MODEL_FOLDER,
)
FEW = 4
"""Differences that are shown."""


def check_out_url(url: str, force: bool, *, comparison: bool = False) -> None:
    """ConfigError where `out.url` belongs to something else: nothing is mixed with an evaluation."""
    kind, wanted = url_kinds.kind_at(url), url_kinds.COMPARISON if comparison else url_kinds.EVALUATION
    if kind in _OTHERS or kind in {url_kinds.EVALUATION, url_kinds.COMPARISON} - {wanted}:
        raise ConfigError(f"out.url={url} is {kind}: give {wanted} a folder of its own")
    if not storage.is_folder(url) and storage.exists(url):
        raise ConfigError(f"out.url={url} is {kind}, a folder is wanted: give another out.url")
    # --force replaces an evaluation. It never replaces a run, a checkpoint or a shard set: those were
    # refused above.
    if force or kind == wanted:
        return
    names = set(storage.list_names(url))
    if evaluation_files.UNFINISHED in names or comparison:
        return
    # No UNFINISHED file lies there, so files of these names were not left by an evaluation of ours.
    strange = sorted(names & set(evaluation_files.FILES))
    if strange:
        raise output_files.foreign_output_error(storage.join(url, strange[0]), "evaluate", "out.url")


def read_matching_evaluation(
    start: StartingWeights, data: LabelledSet, config: EvaluateConfig, force: bool, say: Callable[[str], None]
) -> Evaluation | None:
    """The same evaluation where it is complete already; None where it has to be made.

    ConfigError, with the difference, where another one stands there and `force` is not given; RecordError
    where its metrics.json is damaged or of another program.
    """
    url = config.out.url
    if force or not storage.exists(storage.join(url, evaluation_files.METRICS)):
        return None
    differing = changes(evaluation_files.read_metrics(url), start, data, config)
    if differing:
        raise ConfigError(_refusal(url, "evaluation", differing))
    try:
        return evaluation_files.read(url)
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
    old_weights = json_reader.read(where, ComparisonFile, remedy)["config"]["weights"]
    lost = [name for name in old_weights if name not in weights]
    if lost:
        raise ConfigError(
            _refusal(where, "comparison", [f"weights.{name} is in that one and not in this" for name in lost])
        )


def _refusal(url: str, name: str, differing: list[str]) -> str:
    more = f", and {len(differing) - FEW} more" if len(differing) > FEW else ""
    return (
        f"{url} holds another {name} ({'; '.join(differing[:FEW])}{more}): "
        "give another out.url, or replace it with --force"
    )
