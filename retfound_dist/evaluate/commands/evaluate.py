"""`retfound evaluate`: one checkpoint, fine-tuned and scored on a labelled set.

retfound evaluate configs/evaluate_octid.toml checkpoint=RUN/checkpoints/step_00080000
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from retfound_dist.config.loading import load, to_dict
from retfound_dist.config.schema import MULTICLASS, EvaluateConfig
from retfound_dist.evaluate.classifier.classifier_file import classifier_url, has_classifier
from retfound_dist.evaluate.classifier.kept_classifier import kept_classifier, save_seed
from retfound_dist.evaluate.clinical.questions import check_clinical
from retfound_dist.evaluate.commands.clinical_scores import Predicted, add_clinical_scores
from retfound_dist.evaluate.commands.rescored_evaluation import with_clinical_settings
from retfound_dist.evaluate.commands.set_messages import (
    add_pretraining_overlap,
    load_labelled,
    show_pretraining_overlap,
)
from retfound_dist.evaluate.data import external_validation, pretraining_overlap
from retfound_dist.evaluate.data.labelled_set import LabelledSet, count_patients
from retfound_dist.evaluate.data.starting_weights import StartingWeights, open_starting_weights
from retfound_dist.evaluate.finetune.finetuning import FinetuneResult, best_device
from retfound_dist.evaluate.finetune.recipe_search import tune
from retfound_dist.evaluate.finetune.seeds import (
    finetune_other_seeds,
    finetune_seed,
    measured_speed,
    seed_statistics,
)
from retfound_dist.evaluate.finetune.trained_parameters import check_methods
from retfound_dist.evaluate.finetune.unit_predictions import pool_images, shown_images
from retfound_dist.evaluate.finetune.worst_mistakes import worst_mistakes
from retfound_dist.evaluate.probe.encoder_images import FEATURES_VERSION
from retfound_dist.evaluate.probe.frozen_features import cached_features
from retfound_dist.evaluate.probe.probe_evaluation import predict_test_part, score_test_part
from retfound_dist.evaluate.report.evaluation_page import evaluation_page
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.results.existing_results import check_out_url, read_matching_evaluation
from retfound_dist.evaluate.results.page_images import make_pictures
from retfound_dist.evaluate.scores import bootstrap, metrics, wording
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.evaluate.scores.temperature import fit_temperature
from retfound_dist.evaluate.scores.unit_wording import unit_noun
from retfound_dist.evaluate.task_results.task_commands import evaluate_task
from retfound_dist.evaluate.units.slice_pooling import mean_slices
from retfound_dist.evaluate.units.unit_parts import count_parts, mean_features, scored_set
from retfound_dist.io import storage
from retfound_dist.runtime.humanize import duration
from retfound_dist.runtime.progress import ProgressDisplay

_PACKAGES = ("retfound-dist", "torch", "timm", "numpy", "scikit-learn")
PREDICTION = "mean of the seeds' probabilities"


def evaluate_command(
    config_path: str, overrides: Sequence[str], quiet: bool = False, force: bool = False
) -> int:
    """Run `retfound evaluate`; RetfoundError for anything that a user can fix."""
    config, _ = load(EvaluateConfig, config_path, overrides)
    set_threads(config.threads)
    check_out_url(config.out.url, force)
    start = open_starting_weights(config.checkpoint, config.model)
    check_methods(start.backbone, config.finetune)
    with ProgressDisplay(quiet) as show:
        if remark := start.remark:
            show.say(remark)
        data = load_labelled(config.data, start.backbone, show, config.external, config.task)
        if config.task.kind != MULTICLASS:
            evaluate_task(start, data, config, show, versions(), force)
            return 0
        check_clinical(config.clinical, data.classes)
        existing = read_matching_evaluation(start, data, config, force, show.warn)
        if existing:
            existing = with_clinical_settings(existing, data, config, show)
            # A deleted page is drawn again from the other files, without a new evaluation.
            if not storage.exists(storage.join(config.out.url, evaluation_files.REPORT)):
                storage.write_text(
                    storage.join(config.out.url, evaluation_files.REPORT), evaluation_page(existing)
                )
            show.say(f"already evaluated, --force does it again; {headline(existing)}")
            show_pretraining_overlap(pretraining_overlap.count_overlap(start, data.parts), show)
            for remark in existing.remarks:
                show.warn(remark)
            if config.finetune.keep is not False and not has_classifier(config.out.url):
                show.say("note: it has no classifier/, which --force makes")
            show.say(f"report: {config.out.url.rstrip('/')}/{evaluation_files.REPORT}")
            return 0
        keep = config.finetune.keep is not False
        evaluation = evaluate_start(start, data, config, show, keep=keep)
        show.begin("writing the report")
        page = evaluation_page(evaluation)
        evaluation_files.write(config.out.url, evaluation, data, page)
        show.say(headline(evaluation))
        if evaluation.classifier:
            show.say(f"classifier: {classifier_url(config.out.url)}")
        show.say(f"report: {config.out.url.rstrip('/')}/{evaluation_files.REPORT}")
    return 0


def set_threads(threads: int) -> None:
    """CPU threads of torch; 0 leaves its default, which follows OMP_NUM_THREADS."""
    if threads:
        torch.set_num_threads(threads)


def evaluate_start(
    start: StartingWeights,
    data: LabelledSet,
    config: EvaluateConfig,
    show: ProgressDisplay,
    whole_features: str = "",
    keep: bool = False,
) -> Evaluation:
    """Fine-tune with each seed and score the mean of the predictions.

    `whole_features`: folder of features.npz of the whole set, for several evaluations with some of its
    labels. Empty: the evaluation has a features.npz of its own. `keep`: store the fine-tuned weights in
    classifier/ of `config.out.url`.
    """
    started = time.monotonic()
    overlap = pretraining_overlap.count_overlap(start, data.parts)
    show_pretraining_overlap(overlap, show)
    search = tune(
        config.finetune, lambda recipe: finetune_seed(start, data, config, recipe, config.seeds[0], show)
    )
    if search.tried_recipes:
        show.say(f"chosen by val: {wording.describe_tuning(search.recipe_change, search.tried_recipes)}")
    # The same set where images are scored. Else its parts have volumes, eyes or patients from here on.
    of_units = scored_set(data, shown_images(data, search.result))
    # Heat maps need the fine-tuned model, which only the first seed returns.
    mistakes = worst_mistakes(search.model, start.backbone, of_units, search.result)
    keep_seed = partial(save_seed, classifier_url(config.out.url)) if keep else None
    first = search.result
    if keep_seed:
        # Only now: `tune` may have tried several recipes.
        first = replace(first, kept=keep_seed(search.model, first))
    results = [first, *finetune_other_seeds(start, data, config, search.recipe, show, keep_seed)]
    test = of_units.parts["test"]
    # Rounded as in predictions.csv, so that the same scores can be computed from the file.
    probabilities_SNC: Floats = np.stack([result.probabilities for result in results]).round(
        evaluation_files.DIGITS
    )
    probabilities_NC = bootstrap.mean_probabilities(probabilities_SNC).round(evaluation_files.DIGITS)
    test_scores = metrics.evaluate(test.labels, probabilities_NC, data.classes)
    val_probabilities_NC = mean_val_probabilities(results)
    show.begin("bootstrap")
    draws = bootstrap.draw_units(test.patients, test.keys, test.units, config.bootstrap)
    resampled = bootstrap.scores_over_seeds(
        test.labels, probabilities_SNC, draws.weights_RN, on_progress=show.advance
    )
    read_features = partial(
        cached_features,
        start,
        data,
        folder=whole_features or config.out.url,
        on_progress=show.advance,
        of_whole_set=bool(whole_features),
    )
    probe_probabilities: dict[str, Floats] = {}
    probed: dict[str, Any] = {}
    if config.probe.enabled:
        show.begin(f"features of {start.url}")
        features = read_features(("train", "test"))
        predicted = predict_test_part(start, features, data, config.probe, show)
        predicted = {name: pool_images(data.parts["test"], p, data.unit)[0] for name, p in predicted.items()}
        # Rounded as in the CSV.
        probe_probabilities = {name: p_NC.round(evaluation_files.DIGITS) for name, p_NC in predicted.items()}
        scored = score_test_part(probe_probabilities, of_units, config.probe, config.bootstrap, show)
        probed = {"probe": scored, "features_version": FEATURES_VERSION}
    tree = {
        **test_scores,
        "ci95": bootstrap.intervals(resampled),
        "bootstrap": {
            "unit": draws.unit,
            "units": int(draws.units_N.max()) + 1,
            "resamples": config.bootstrap,
            "seeds": len(results),
            **evaluation_files.unit_names(draws.unit, test.units),
        },
        "classes": list(data.classes),
        "seeds": list(config.seeds),
        "prediction": PREDICTION,
        "temperature": fit_temperature(of_units.parts["val"].labels, val_probabilities_NC, data.unit),
        **(
            {"tuning": {"recipe": search.recipe_change, "tried": search.tried_recipes}}
            if search.tried_recipes
            else {}
        ),
        **seed_statistics(results, of_units),
        **probed,
        "checkpoint": {**start.describe(), "pretrained_on": overlap},
        "finetune": {
            # With `try_recipes` the config does not say which method was chosen.
            "method": search.recipe.method,
            "trained_parameters": search.result.trained_parameters,
            "parameters": search.result.parameters,
        },
        "speed": measured_speed(results, len(data.parts["test"])),
        "split": count_parts(data),
        "patients": count_patients(test.patients),
        "skipped": [{"key": key, "reason": reason} for key, reason in data.skipped],
        "warnings": list(data.warnings),
        "notes": list(data.notes),
        "data": {"path": data.path, "fingerprint": data.fingerprint, "columns": data.columns},
        "versions": versions(),
        "seconds": round(time.monotonic() - started, 1),
        "config": to_dict(config),
    }
    external_result, outside = None, external_predictions(results, of_units, config.bootstrap)
    if outside and data.external and of_units.external:
        external_result = external_validation.score(of_units.external, outside[0], data.classes, outside[1])
        tree["external"] = add_pretraining_overlap(external_result.metrics, start, data.external.part, show)
    add_clinical_scores(
        tree, of_units, config, (probabilities_SNC, draws), val_probabilities_NC, outside, show
    )
    history = [row for result in results for row in result.history]
    # Read from features.npz where probes have computed them.
    test_features = mean_features(read_features(("test",))["test"], data)
    show.begin("pictures")
    pictures = make_pictures(start, data, test_features, mistakes, show.say)
    return Evaluation(
        metrics=tree,
        keys=test.keys,
        patients=test.patients,
        labels_N=test.labels,
        probabilities_NC=probabilities_NC,
        history=history,
        pictures=pictures,
        probabilities_SNC=probabilities_SNC if len(results) > 1 else None,
        probe_probabilities=probe_probabilities,
        external=external_result,
        val_probabilities_NC=val_probabilities_NC,
        slices=mean_slices([result.slices for result in results if result.slices]),
        classifier=kept_classifier(start, tree, search.recipe, results) if keep else None,
    )


def mean_val_probabilities(results: Sequence[FinetuneResult]) -> Floats | None:
    """(N, C) of the val part, rounded as for test; None without a val part."""
    of_seeds = [result.val_probabilities for result in results if result.val_probabilities is not None]
    if not of_seeds:
        return None
    val_SNC: Floats = np.stack(of_seeds).round(evaluation_files.DIGITS)
    return bootstrap.mean_probabilities(val_SNC).round(evaluation_files.DIGITS)


def external_predictions(
    results: Sequence[FinetuneResult], data: LabelledSet, resamples: int
) -> Predicted | None:
    """(S, N, C) of the external set, and its resamples; None without such a set."""
    of_seeds = [each.external_probabilities for each in results if each.external_probabilities is not None]
    if data.external is None or not of_seeds:
        return None
    part = data.external.part
    return np.stack(of_seeds), bootstrap.draw_units(part.patients, part.keys, part.units, resamples)


def headline(evaluation: Evaluation) -> str:
    """The most important scores on one line."""

    def text(name: str) -> str:
        value, span = evaluation.metrics["macro"][name], evaluation.metrics["ci95"]["macro"][name]
        if value is None:
            return "undefined"
        return f"{value:.3f}" + (f" [{span[0]:.3f}, {span[1]:.3f}]" if span else "")

    noun = unit_noun(evaluation.metrics)
    size = f"{len(evaluation.keys)} {noun}, {duration(evaluation.metrics['seconds'], whole=True)}"
    return (
        f"test ({size}): AUROC {text('auroc')}, AUPR {text('aupr')}, "
        f"balanced accuracy {text('balanced_accuracy')}"
    )


def versions() -> dict[str, str]:
    """Versions of Python and packages, and the device."""
    device, threads = best_device(), torch.get_num_threads()
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    )
    return {"python": platform.python_version(), **{p: version(p) for p in _PACKAGES}, "device": name}
