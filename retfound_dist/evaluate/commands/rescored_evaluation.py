"""Scores an existing evaluation again where only the clinical settings, or cells of the list, have changed.

Fine-tuning takes hours, and a prevalence does not change it: the predictions in the files are enough.
"""

from __future__ import annotations

from retfound_dist.config.loading import to_dict
from retfound_dist.config.schema import EvaluateConfig
from retfound_dist.evaluate.classifier import classifier_file
from retfound_dist.evaluate.clinical.clinical_entries import kept_thresholds
from retfound_dist.evaluate.clinical.subgroup_scores import has_groups_of
from retfound_dist.evaluate.commands.clinical_scores import add_clinical_scores
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.report.evaluation_page import evaluation_page
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.results.cached_evaluation import can_be_rescored
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.io import storage
from retfound_dist.runtime.progress import ProgressDisplay


def with_clinical_settings(
    evaluation: Evaluation, data: LabelledSet, config: EvaluateConfig, show: ProgressDisplay
) -> Evaluation:
    """The evaluation with the clinical scores and subgroups that the settings ask for.

    Where it has others, its metrics.json, its page and the thresholds of its classifier are written again,
    and a line says so. RecordError where the predictions of val are damaged.
    """
    if not can_be_rescored(evaluation.metrics) or _is_current(evaluation, data, config):
        return evaluation
    url, val = config.out.url, data.parts["val"]
    val_probabilities_VC = evaluation_files.read_val(url, evaluation.classes, val.keys) if len(val) else None
    tree = {name: value for name, value in evaluation.metrics.items() if name != "subgroups"}
    test = data.parts["test"]
    draws = bootstrap.draw_units(test.patients, test.keys, test.units, config.bootstrap)
    predicted = evaluation.seed_probabilities_SNC, draws
    add_clinical_scores(tree, data, config, predicted, val_probabilities_VC, None, show)
    requested = to_dict(config)
    tree["config"] = {
        **tree["config"],
        "clinical": requested["clinical"],
        "data": {**tree["config"]["data"], "subgroups": requested["data"]["subgroups"]},
    }
    evaluation.metrics.clear()
    evaluation.metrics.update(tree)
    _write(url, evaluation)
    show.say(f"{url}: scored again for the clinical settings, without a new fine-tuning")
    return evaluation


def _write(url: str, evaluation: Evaluation) -> None:
    """Write what depends on the clinical settings; metrics.json last, so that a stop halfway is made good."""
    if classifier_file.has_classifier(url):
        thresholds = kept_thresholds(evaluation.metrics["clinical"])
        classifier_file.replace_thresholds(classifier_file.classifier_url(url), thresholds)
    storage.write_text(storage.join(url, evaluation_files.REPORT), evaluation_page(evaluation))
    storage.write_json(storage.join(url, evaluation_files.METRICS), evaluation.metrics)


def _is_current(evaluation: Evaluation, data: LabelledSet, config: EvaluateConfig) -> bool:
    """Whether the settings are those of the evaluation, and every test image is in the same subgroup."""
    requested, stored = to_dict(config), evaluation.metrics["config"]
    if stored.get("clinical") != requested["clinical"]:
        return False
    return has_groups_of(evaluation.metrics, data.parts["test"], config.data.subgroups)
