"""`retfound evaluate`: one checkpoint, fine-tuned and scored on a labelled set.

retfound evaluate configs/evaluate_octid.toml checkpoint=RUN/checkpoints/step_00080000
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from retfound_dist.config.loading import load, to_dict
from retfound_dist.config.schema import EvalData, EvaluateConfig, External
from retfound_dist.evaluate.data import external_validation, pretraining_overlap
from retfound_dist.evaluate.data.labelled_set import LabelledSet, SplitPart, count_patients
from retfound_dist.evaluate.data.starting_weights import StartingWeights, open_starting_weights
from retfound_dist.evaluate.finetune.finetuning import FinetuneResult, best_device
from retfound_dist.evaluate.finetune.recipe_search import tune
from retfound_dist.evaluate.finetune.seeds import finetune_other_seeds, finetune_seed, seed_statistics
from retfound_dist.evaluate.finetune.trained_parameters import check_methods
from retfound_dist.evaluate.finetune.worst_mistakes import worst_mistakes
from retfound_dist.evaluate.probe.encoder_images import FEATURES_VERSION
from retfound_dist.evaluate.probe.frozen_features import cached_features
from retfound_dist.evaluate.probe.probe_evaluation import predict_test_part, score_test_part
from retfound_dist.evaluate.report.evaluation_page import evaluation_page
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.results.evaluation_files import Evaluation
from retfound_dist.evaluate.results.existing_results import check_out_url, read_matching_evaluation
from retfound_dist.evaluate.results.page_images import make_pictures
from retfound_dist.evaluate.scores import bootstrap, metrics, wording
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.io import storage
from retfound_dist.model.backbones.backbone import Backbone
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
        data = load_labelled(config.data, start.backbone, show, config.external)
        existing = read_matching_evaluation(start, data, config, force, show.warn)
        if existing:
            # A deleted page is drawn again from the other files, without a new evaluation.
            if not storage.exists(storage.join(config.out.url, evaluation_files.REPORT)):
                storage.write_text(
                    storage.join(config.out.url, evaluation_files.REPORT), evaluation_page(existing)
                )
            show.say(f"already evaluated, --force does it again; {headline(existing)}")
            show_pretraining_overlap(pretraining_overlap.count_overlap(start, data.parts), show)
            for remark in existing.remarks:
                show.warn(remark)
            show.say(f"report: {config.out.url.rstrip('/')}/{evaluation_files.REPORT}")
            return 0
        evaluation = evaluate_start(start, data, config, show)
        show.begin("writing the report")
        page = evaluation_page(evaluation)
        evaluation_files.write(config.out.url, evaluation, data, page)
        show.say(headline(evaluation))
        show.say(f"report: {config.out.url.rstrip('/')}/{evaluation_files.REPORT}")
    return 0


def set_threads(threads: int) -> None:
    """CPU threads of torch; 0 leaves its default, which follows OMP_NUM_THREADS."""
    if threads:
        torch.set_num_threads(threads)


def load_labelled(
    config: EvalData, backbone: Backbone, show: ProgressDisplay, external: External | None = None
) -> LabelledSet:
    """Decode the labelled set and the external set, and show the progress."""
    show.begin(f"reading {config.path}")
    data = external_validation.load_with_external(
        config, external, backbone.image_size, show.advance, backbone.preparation.interpolation
    )
    parts = ", ".join(f"{name} {len(part)}" for name, part in data.parts.items())
    split_by = wording.describe_split(data.split_source, data.unit_counts)
    show.say(f"{config.path}: {len(data.classes)} classes; {parts} images; split {split_by}")
    if data.columns:
        show.say(data.columns)
    for note in data.notes:
        show.say(f"note: {note}")
    for key, reason in data.skipped[:10]:
        show.say(f"left out: {key}: {reason}")
    for warning in data.warnings:
        show.say(f"warning: {warning}")
    if data.external:
        if data.external.columns:
            show.say(data.external.columns)
        for note in data.external.notes:
            show.say(f"note: {data.external.path}: {note}")
        show.say(
            f"{data.external.path}: "
            f"{wording.describe_external(external_validation.describe(data.external, data.classes))}"
        )
    return data


def evaluate_start(
    start: StartingWeights,
    data: LabelledSet,
    config: EvaluateConfig,
    show: ProgressDisplay,
    whole_features: str = "",
) -> Evaluation:
    """Fine-tune with each seed and score the mean of the predictions.

    `whole_features`: folder of features.npz of the whole set, for several evaluations with some of its
    labels. Empty: the evaluation has a features.npz of its own.
    """
    started = time.monotonic()
    overlap = pretraining_overlap.count_overlap(start, data.parts)
    show_pretraining_overlap(overlap, show)
    search = tune(
        config.finetune, lambda recipe: finetune_seed(start, data, config, recipe, config.seeds[0], show)
    )
    if search.tried_recipes:
        show.say(f"chosen by val: {wording.describe_tuning(search.recipe_change, search.tried_recipes)}")
    # Heat maps need the fine-tuned model, which only the first seed returns.
    mistakes = worst_mistakes(search.model, start.backbone, data, search.result)
    results = [search.result, *finetune_other_seeds(start, data, config, search.recipe, show)]
    test = data.parts["test"]
    # Rounded as in predictions.csv, so that the same scores can be computed from the file.
    probabilities_SNC: Floats = np.stack([result.probabilities for result in results]).round(
        evaluation_files.DIGITS
    )
    probabilities_NC = bootstrap.mean_probabilities(probabilities_SNC).round(evaluation_files.DIGITS)
    test_scores = metrics.evaluate(test.labels, probabilities_NC, data.classes)
    show.begin("bootstrap")
    unit, units_N = bootstrap.resampling_units(test.patients, test.keys, test.units)
    weights_RN = bootstrap.resample(units_N, config.bootstrap, 0)
    resampled = bootstrap.scores_over_seeds(
        test.labels, probabilities_SNC, weights_RN, on_progress=show.advance
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
        # Rounded as in the CSV.
        probe_probabilities = {name: p_NC.round(evaluation_files.DIGITS) for name, p_NC in predicted.items()}
        scored = score_test_part(probe_probabilities, data, config.probe, config.bootstrap, show)
        probed = {"probe": scored, "features_version": FEATURES_VERSION}
    tree = {
        **test_scores,
        "ci95": bootstrap.intervals(resampled),
        "bootstrap": {
            "unit": unit,
            "units": int(units_N.max()) + 1,
            "resamples": config.bootstrap,
            "seeds": len(results),
            **evaluation_files.unit_names(unit, test.units),
        },
        "classes": list(data.classes),
        "seeds": list(config.seeds),
        "prediction": PREDICTION,
        **(
            {"tuning": {"recipe": search.recipe_change, "tried": search.tried_recipes}}
            if search.tried_recipes
            else {}
        ),
        **seed_statistics(results, data),
        **probed,
        "checkpoint": {**start.describe(), "pretrained_on": overlap},
        "finetune": {
            # With `try_recipes` the config does not say which method was chosen.
            "method": search.recipe.method,
            "trained_parameters": search.result.trained_parameters,
            "parameters": search.result.parameters,
        },
        "speed": measured_speed(results, len(test)),
        "split": data.counts(),
        "patients": count_patients(test.patients),
        "skipped": [{"key": key, "reason": reason} for key, reason in data.skipped],
        "warnings": list(data.warnings),
        "notes": list(data.notes),
        "data": {"path": data.path, "fingerprint": data.fingerprint, "columns": data.columns},
        "versions": versions(),
        "seconds": round(time.monotonic() - started, 1),
        "config": to_dict(config),
    }
    external_result = score_external(results, data, config.bootstrap)
    if external_result and data.external:
        tree["external"] = add_pretraining_overlap(external_result.metrics, start, data.external.part, show)
    history = [row for result in results for row in result.history]
    # Read from features.npz where probes have computed them.
    test_features = read_features(("test",))["test"]
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
    )


def measured_speed(results: Sequence[FinetuneResult], images: int) -> dict[str, float]:
    """Images a second of the test part's prediction, and seconds of fine-tuning with one seed: the means."""
    predicting = sum(result.test_seconds for result in results)
    training = sum(row["seconds"] for result in results for row in result.history)
    return {
        "test_images_per_s": round(images * len(results) / max(predicting, 1e-9), 1),
        "finetune_s": round(training / len(results), 1),
    }


def show_pretraining_overlap(overlap: dict[str, Any], show: ProgressDisplay, row: str = "") -> None:
    """Show a warning where test or val images were seen in pretraining, and a line where it is not known."""
    if warning := wording.pretrained_warning(overlap):
        show.say(f"warning: {row}{warning}")
    elif str(overlap["how"]).startswith(pretraining_overlap.UNKNOWN):
        show.say(f"{row}{wording.pretrained_note(overlap)}")


def add_pretraining_overlap(
    tree: dict[str, Any], start: StartingWeights, part: SplitPart, show: ProgressDisplay
) -> dict[str, Any]:
    """The external test, with the number of its images that the weights were pretrained on."""
    overlap = pretraining_overlap.count_overlap(start, {"test": part})
    warning = wording.external_overlap_warning(overlap)
    if warning:
        show.say(f"warning: {tree['data']['path']}: {warning}")
    return {
        **tree,
        "pretrained_on": overlap,
        "warnings": [*tree["warnings"], *([warning] if warning else [])],
    }


def score_external(
    results: Sequence[FinetuneResult], data: LabelledSet, resamples: int
) -> external_validation.ExternalTest | None:
    """Scores of the external set, from the mean of the seeds' probabilities; None without such a set."""
    seed_probabilities = [
        result.external_probabilities for result in results if result.external_probabilities is not None
    ]
    if data.external is None or not seed_probabilities:
        return None
    return external_validation.score(
        data.external, np.stack(seed_probabilities), data.classes, resamples, evaluation_files.DIGITS
    )


def headline(evaluation: Evaluation) -> str:
    """The most important scores on one line."""

    def text(name: str) -> str:
        value, span = evaluation.metrics["macro"][name], evaluation.metrics["ci95"]["macro"][name]
        if value is None:
            return "undefined"
        return f"{value:.3f}" + (f" [{span[0]:.3f}, {span[1]:.3f}]" if span else "")

    size = f"{len(evaluation.keys)} images, {duration(evaluation.metrics['seconds'], whole=True)}"
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
