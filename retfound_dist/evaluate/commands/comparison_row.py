"""One row of a comparison or a watch: an evaluation in its own folder, made once."""

from __future__ import annotations

from retfound_dist.config.schema import EvaluateConfig
from retfound_dist.evaluate.commands.evaluate import evaluate_start, headline
from retfound_dist.evaluate.data import pretraining_overlap
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import StartingWeights
from retfound_dist.evaluate.report.evaluation_page import evaluation_page
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.results.cached_evaluation import is_same
from retfound_dist.evaluate.results.evaluation_files import Evaluation
from retfound_dist.runtime.progress import ProgressDisplay


def complete_row(start: StartingWeights, data: LabelledSet, config: EvaluateConfig) -> Evaluation | None:
    """The evaluation at `config.out.url`, if it is complete and has the same weights, images and settings.

    RecordError where it is damaged. Its `pretrained_on` is counted again, because the shard set may have
    become readable.
    """
    evaluation = evaluation_files.read(config.out.url)
    if evaluation is None or not is_same(evaluation.metrics, start, data, config):
        return None
    overlap = pretraining_overlap.count_overlap(start, data.parts)
    # The shard set may be unreadable now: an earlier count is better than `unknown`.
    if str(overlap["how"]).startswith(pretraining_overlap.UNKNOWN):
        overlap = evaluation.metrics["checkpoint"].get("pretrained_on", overlap)
    evaluation.metrics["checkpoint"]["pretrained_on"] = overlap
    return evaluation


def make_row(
    start: StartingWeights,
    data: LabelledSet,
    config: EvaluateConfig,
    show: ProgressDisplay,
    whole_features: str = "",
) -> Evaluation:
    """Evaluate and write the files to `config.out.url`; `whole_features` as for `evaluate_start`."""
    evaluation = evaluate_start(start, data, config, show, whole_features)
    evaluation_files.write(config.out.url, evaluation, data, evaluation_page(evaluation))
    show.say(headline(evaluation))
    return evaluation
