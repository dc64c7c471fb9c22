"""One row of a comparison or a watch: an evaluation in its own folder, made once."""

from __future__ import annotations

from retfound_dist.config.schema import EvaluateConfig
from retfound_dist.errors import RecordError, StorageError
from retfound_dist.evaluate.commands.evaluate import evaluate_start, headline
from retfound_dist.evaluate.commands.rescored_evaluation import with_clinical_settings
from retfound_dist.evaluate.commands.set_messages import show_pretraining_overlap
from retfound_dist.evaluate.data import pretraining_overlap
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import StartingWeights
from retfound_dist.evaluate.report.evaluation_page import evaluation_page
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.results.cached_evaluation import is_same
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.runtime.progress import ProgressDisplay


def complete_evaluation(
    start: StartingWeights, data: LabelledSet, config: EvaluateConfig, show: ProgressDisplay
) -> Evaluation | None:
    """The evaluation at `config.out.url`, if it is complete and has the same weights, images and settings.

    RecordError where it is damaged. Where only the clinical settings differ, it is scored again. Its
    `pretrained_on` is counted again, because the shard set may have become readable.
    """
    evaluation = _same_evaluation(start, data, config)
    return None if evaluation is None else _brought_up_to_date(evaluation, start, data, config, show)


def reusable_evaluation(
    start: StartingWeights, data: LabelledSet, config: EvaluateConfig, show: ProgressDisplay
) -> Evaluation | None:
    """The evaluation if it can be reused; `read_matching_evaluation` reports what is wrong otherwise.

    RecordError where it has to be scored again, and the predictions of val are damaged.
    """
    try:
        evaluation = _same_evaluation(start, data, config)
    except RecordError:
        return None
    return None if evaluation is None else _brought_up_to_date(evaluation, start, data, config, show)


def _same_evaluation(start: StartingWeights, data: LabelledSet, config: EvaluateConfig) -> Evaluation | None:
    evaluation = evaluation_files.read(config.out.url)
    if evaluation is None or not is_same(evaluation.metrics, start, data, config):
        return None
    return evaluation


def _brought_up_to_date(
    evaluation: Evaluation,
    start: StartingWeights,
    data: LabelledSet,
    config: EvaluateConfig,
    show: ProgressDisplay,
) -> Evaluation:
    """The evaluation with today's clinical settings and overlap with pretraining; its scores stay."""
    evaluation = with_clinical_settings(evaluation, data, config, show)
    overlap = pretraining_overlap.count_overlap(start, data.parts)
    # The shard set may be unreadable now: an earlier count is better than `unknown`.
    if str(overlap["how"]).startswith(pretraining_overlap.UNKNOWN):
        overlap = evaluation.metrics["checkpoint"].get("pretrained_on", overlap)
    evaluation.metrics["checkpoint"]["pretrained_on"] = overlap
    return evaluation


def show_existing(
    evaluation: Evaluation, title: str, show: ProgressDisplay, *, with_overlap: bool = True
) -> None:
    """Show the scores of a row that is reused, and the images that its weights were pretrained on."""
    for remark in evaluation.remarks:
        show.warn(f"{title}: {remark}")
    show.say(f"{title}: already evaluated; {headline(evaluation)}")
    if with_overlap:
        show_pretraining_overlap(evaluation.metrics["checkpoint"]["pretrained_on"], show, f"{title}: ")


def read_back(config: EvaluateConfig) -> Evaluation:
    """The evaluation that another process has just written; StorageError where it is not there."""
    evaluation = evaluation_files.read_whole(config.out.url)
    if evaluation is None:
        raise StorageError(f"the evaluation just written to {config.out.url} cannot be read back")
    return evaluation


def evaluate_and_write(
    start: StartingWeights,
    data: LabelledSet,
    config: EvaluateConfig,
    show: ProgressDisplay,
    whole_features: str = "",
    keep: bool = False,
) -> Evaluation:
    """Evaluate and write the files to `config.out.url`; `whole_features` and `keep` as for
    `evaluate_start`."""
    evaluation = evaluate_start(start, data, config, show, whole_features, keep)
    evaluation_files.write(config.out.url, evaluation, data, evaluation_page(evaluation))
    show.say(headline(evaluation))
    return evaluation
