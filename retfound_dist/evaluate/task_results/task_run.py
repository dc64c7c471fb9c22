"""Evaluates starting weights on a task: fine-tunes with each seed, and scores the mean of their predictions.

Shapes: S seeds, N images, P predictions of an image.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from retfound_dist.config.loading import to_dict
from retfound_dist.config.schema import EvaluateConfig
from retfound_dist.evaluate.classifier.classifier_file import classifier_url
from retfound_dist.evaluate.classifier.kept_classifier import kept_classifier, save_seed
from retfound_dist.evaluate.data import pretraining_overlap
from retfound_dist.evaluate.data.labelled_set import LabelledSet, count_patients
from retfound_dist.evaluate.data.starting_weights import StartingWeights
from retfound_dist.evaluate.finetune.finetuning import FinetuneResult
from retfound_dist.evaluate.finetune.seeds import finetune_other_seeds, finetune_seed, measured_speed
from retfound_dist.evaluate.probe.encoder_images import FEATURES_VERSION
from retfound_dist.evaluate.probe.frozen_features import cached_features
from retfound_dist.evaluate.results.evaluation_files import unit_names
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.metrics import DIGITS, Floats
from retfound_dist.evaluate.scores.ranking_sums import Weights
from retfound_dist.evaluate.task_results.task_evaluation import TaskEvaluation, seed_tables, target_tables
from retfound_dist.evaluate.task_results.task_probe import penalty_notes, probe_predictions
from retfound_dist.evaluate.task_results.task_wording import describe_unused
from retfound_dist.evaluate.tasks.label_thresholds import choose_thresholds
from retfound_dist.evaluate.tasks.task_bootstrap import resampled_scores, score_intervals
from retfound_dist.evaluate.tasks.task_facts import MULTILABEL, TaskFacts, facts_of
from retfound_dist.evaluate.tasks.task_objective import targets_of
from retfound_dist.evaluate.tasks.task_outputs import mean_predictions
from retfound_dist.evaluate.tasks.task_scores import score_once
from retfound_dist.runtime.progress import ProgressDisplay

PREDICTION = "mean of the seeds' predictions"
_OTHER_PROBES = ("knn", "attentive")


def run_task(
    start: StartingWeights,
    data: LabelledSet,
    config: EvaluateConfig,
    show: ProgressDisplay,
    versions: Mapping[str, str],
    keep: bool = False,
) -> TaskEvaluation:
    """Fine-tune with each seed and score the mean of the predictions.

    `versions`: for metrics.json. `keep`: store the fine-tuned weights in classifier/ of `config.out.url`.
    """
    started = time.monotonic()
    facts, test = facts_of(data), data.parts["test"]
    overlap = pretraining_overlap.count_overlap(start, data.parts)
    if line := pretraining_overlap.overlap_line(overlap):
        show.say(line)
    notes = [
        *data.notes,
        *describe_unused(facts, config.finetune.label_smoothing),
        *_probe_notes(config),
        *penalty_notes(facts, data.parts["train"], config.probe),
    ]
    for note in notes[len(data.notes) :]:
        show.say(f"note: {note}")
    results = _finetune_seeds(start, data, config, show, keep)
    # Rounded as in the files, so that the same scores can be computed from them.
    predictions_SNP: Floats = np.stack([result.probabilities for result in results]).round(DIGITS)
    predictions_NP = mean_predictions(predictions_SNP)
    val = [result.val_probabilities for result in results if result.val_probabilities is not None]
    val_NP = mean_predictions(np.stack(val)) if val else None
    thresholds = _thresholds(facts, data, val_NP)
    show.begin("bootstrap")
    draws = bootstrap.draw_units(test.patients, test.keys, test.units, config.bootstrap)
    resampled = resampled_scores(facts, targets_of(test), predictions_SNP, draws.weights_RN, show.advance)
    assert data.targets is not None
    tree: dict[str, Any] = {
        "task": facts.to_json(),
        "unknown": dict(data.targets.unknown),
        "scores": score_once(facts, targets_of(test), predictions_NP),
        "ci95": score_intervals(resampled),
        **target_tables(facts, targets_of(test), predictions_NP, thresholds),
        **({"thresholds": thresholds} if thresholds else {}),
        "bootstrap": {
            "unit": draws.unit,
            "units": int(draws.units_N.max()) + 1,
            "resamples": config.bootstrap,
            "seeds": len(results),
            **unit_names(draws.unit, test.units),
        },
        "seeds": list(config.seeds),
        "prediction": PREDICTION,
        **seed_tables(facts, targets_of(test), results),
        **_probe(facts, start, data, config, draws.weights_RN, show),
        "checkpoint": {**start.describe(), "pretrained_on": overlap},
        "finetune": {
            "method": config.finetune.method,
            "trained_parameters": results[0].trained_parameters,
            "parameters": results[0].parameters,
        },
        "speed": measured_speed(results, len(test)),
        # The strata of the split are named as classes are.
        "split": data.counts(),
        "patients": count_patients(test.patients),
        "skipped": [{"key": key, "reason": reason} for key, reason in data.skipped],
        "warnings": list(data.warnings),
        "notes": notes,
        "data": {"path": data.path, "fingerprint": data.fingerprint, "columns": data.columns},
        "versions": dict(versions),
        "seconds": round(time.monotonic() - started, 1),
        "config": to_dict(config),
    }
    return TaskEvaluation(
        metrics=tree,
        keys=test.keys,
        patients=test.patients,
        targets_NT=targets_of(test),
        predictions_SNP=predictions_SNP,
        history=[row for result in results for row in result.history],
        val_predictions_NP=val_NP,
        classifier=kept_classifier(start, tree, config.finetune, results, facts) if keep else None,
    )


def _thresholds(facts: TaskFacts, data: LabelledSet, val_NP: Floats | None) -> dict[str, Any]:
    """`choose_thresholds` of the val part; empty where no labels are predicted."""
    if facts.kind != MULTILABEL:
        return {}
    truth_NT = None if val_NP is None else targets_of(data.parts["val"])
    return choose_thresholds(facts.targets, truth_NT, val_NP)


def _finetune_seeds(
    start: StartingWeights, data: LabelledSet, config: EvaluateConfig, show: ProgressDisplay, keep: bool
) -> list[FinetuneResult]:
    save = partial(save_seed, classifier_url(config.out.url)) if keep else None
    first, model = finetune_seed(start, data, config, config.finetune, config.seeds[0], show)
    if save:
        first = replace(first, kept=save(model, first))
    # The next seed needs the memory of this model.
    del model
    return [first, *finetune_other_seeds(start, data, config, config.finetune, show, save)]


def _probe_notes(config: EvaluateConfig) -> list[str]:
    others = [kind for kind in _OTHER_PROBES if kind in config.probe.kinds]
    if not config.probe.enabled or not others:
        return []
    return [
        f"of probe.kinds, {' and '.join(others)} {'is' if len(others) == 1 else 'are'} only for classes and "
        f"not used with task.kind={config.task.kind}; the linear probe fits this task"
    ]


def _probe(
    facts: TaskFacts,
    start: StartingWeights,
    data: LabelledSet,
    config: EvaluateConfig,
    weights_RN: Weights,
    show: ProgressDisplay,
) -> dict[str, Any]:
    """The entries `probe` and `features_version` of metrics.json; empty without a linear probe."""
    if not config.probe.enabled or "linear" not in config.probe.kinds:
        return {}
    show.begin(f"features of {start.url}")
    features = cached_features(start, data, ("train", "test"), config.out.url, show.advance)
    show.begin("linear probe")
    predictions_NP = probe_predictions(facts, features["train"], features["test"], data, config.probe)
    targets_NT = targets_of(data.parts["test"])
    resampled = resampled_scores(facts, targets_NT, predictions_NP[None], weights_RN)
    scored = {
        "scores": score_once(facts, targets_NT, predictions_NP),
        "ci95": score_intervals(resampled),
    }
    return {"probe": {"linear": scored}, "features_version": FEATURES_VERSION}
