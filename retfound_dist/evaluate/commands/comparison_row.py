"""One row of a comparison or a watch: an evaluation in a folder of its own, made once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from retfound_dist.config.schema import EvaluateConfig
from retfound_dist.evaluate.commands.evaluate import evaluate_start, headline
from retfound_dist.evaluate.data import pretraining_overlap
from retfound_dist.evaluate.data.external_validation import load_with_external
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import StartingWeights, open_starting_weights
from retfound_dist.evaluate.finetune.parallel_runs import run_in_parallel
from retfound_dist.evaluate.report.evaluation_page import evaluation_page
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.results.cached_evaluation import is_same
from retfound_dist.evaluate.results.evaluation_files import Evaluation
from retfound_dist.runtime.progress import ProgressDisplay


def complete_row(start: StartingWeights, data: LabelledSet, config: EvaluateConfig) -> Evaluation | None:
    """The evaluation at `config.out.url`, if whole and from the same weights, images and settings.

    RecordError where it is damaged. What it says of pretraining is of now: a shard set may have come within
    reach, or gone.
    """
    evaluation = evaluation_files.read(config.out.url)
    if evaluation is None or not is_same(evaluation.metrics, start, data, config):
        return None
    seen = pretraining_overlap.count_overlap(start, data.parts)
    # The shard set may be out of reach now. A count that was made before is worth more than `unknown`.
    if str(seen["how"]).startswith(pretraining_overlap.UNKNOWN):
        seen = evaluation.metrics["checkpoint"].get("pretrained_on", seen)
    evaluation.metrics["checkpoint"]["pretrained_on"] = seen
    return evaluation


def make_row(
    start: StartingWeights, data: LabelledSet, config: EvaluateConfig, show: ProgressDisplay
) -> Evaluation:
    """Evaluate and write to `config.out.url`."""
    evaluation = evaluate_start(start, data, config, show)
    evaluation_files.write(config.out.url, evaluation, data, evaluation_page(evaluation))
    show.say(headline(evaluation))
    return evaluation


def make_rows(rows: Mapping[str, EvaluateConfig], jobs: int, threads: int, show: ProgressDisplay) -> None:
    """Evaluate rows into their folders, `jobs` at a time."""
    show.begin(f"{len(rows)} rows, {min(jobs, len(rows))} at a time")
    run_in_parallel({name: partial(_make, config) for name, config in rows.items()}, jobs, threads, show)


def _make(config: EvaluateConfig, show: ProgressDisplay) -> None:
    # This runs in a process of its own: weights and images are read here rather than pickled.
    start = open_starting_weights(config.checkpoint, config.model)
    make_row(start, load_with_external(config.data, config.external, start.image_size), config, show)
