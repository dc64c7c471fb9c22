"""`retfound evaluate`: one checkpoint, fine-tuned on a labelled set and scored.

retfound evaluate configs/evaluate_octid.toml checkpoint=RUN/checkpoints/step_00080000
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
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
from retfound_dist.evaluate.finetune.worst_mistakes import worst_mistakes
from retfound_dist.evaluate.probe import linear_probe
from retfound_dist.evaluate.probe.frozen_features import cached_features
from retfound_dist.evaluate.report.evaluation_page import evaluation_page
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.results.evaluation_files import Evaluation
from retfound_dist.evaluate.results.existing_results import check_out_url, read_matching_evaluation
from retfound_dist.evaluate.results.page_images import make_pictures
from retfound_dist.evaluate.scores import bootstrap, metrics, wording
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.io import storage
from retfound_dist.runtime.humanize import duration
from retfound_dist.runtime.progress import ProgressDisplay

_PACKAGES = ("retfound-dist", "torch", "timm", "numpy", "scikit-learn")
PREDICTION = "mean of the seeds' probabilities"


def evaluate_command(
    config_path: str, overrides: Sequence[str], quiet: bool = False, force: bool = False
) -> int:
    """Run `retfound evaluate`; raises RetfoundError for anything a person can mend."""
    config, _ = load(EvaluateConfig, config_path, overrides)
    set_threads(config.threads)
    check_out_url(config.out.url, force)
    start = open_starting_weights(config.checkpoint, config.model)
    with ProgressDisplay(quiet) as show:
        if remark := start.remark:
            show.say(remark)
        data = load_labelled(config.data, start.image_size, show, config.external)
        existing = read_matching_evaluation(start, data, config, force, show.warn)
        if existing:
            # The page can be drawn again from the other files: a deleted one is no reason to evaluate
            # again.
            if not storage.exists(storage.join(config.out.url, evaluation_files.REPORT)):
                storage.write_text(
                    storage.join(config.out.url, evaluation_files.REPORT), evaluation_page(existing)
                )
            show.say(f"already evaluated, --force does it again; {headline(existing)}")
            say_pretrained(pretraining_overlap.count_overlap(start, data.parts), show)
            if existing.left_out:
                show.warn(existing.left_out)
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
    config: EvalData, image_size: int, show: ProgressDisplay, other: External | None = None
) -> LabelledSet:
    """Decode the labelled set, and the external one, while showing how far it is."""
    show.begin(f"reading {config.path}")
    data = external_validation.load_with_external(config, other, image_size, show.advance)
    parts = ", ".join(f"{name} {len(part)}" for name, part in data.parts.items())
    split_by = wording.split(data.split_source, data.unit_counts)
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
            f"{wording.external(external_validation.describe(data.external, data.classes))}"
        )
    return data


def evaluate_start(
    start: StartingWeights, data: LabelledSet, config: EvaluateConfig, show: ProgressDisplay
) -> Evaluation:
    """Fine-tune once for each seed and score the mean of their predictions."""
    began = time.monotonic()
    seen = pretraining_overlap.count_overlap(start, data.parts)
    say_pretrained(seen, show)
    first = tune(
        config.finetune, lambda recipe: finetune_seed(start, data, config, recipe, config.seeds[0], show)
    )
    if first.tried_recipes:
        show.say(f"chosen by val: {wording.tuning(first.recipe_change, first.tried_recipes)}")
    # Heat maps need the fine-tuned model itself, which only the first seed hands over.
    mistakes = worst_mistakes(first.model, data, first.result)
    results = [first.result, *finetune_other_seeds(start, data, config, first.recipe, show)]
    test = data.parts["test"]
    # Rounded as predictions.csv holds them, so that anybody can compute the same scores from the file.
    probabilities_SNC: Floats = np.stack([result.probabilities for result in results]).round(
        evaluation_files.DIGITS
    )
    probabilities_NC = bootstrap.mean_of(probabilities_SNC).round(evaluation_files.DIGITS)
    scored = metrics.evaluate(test.labels, probabilities_NC, data.classes)
    show.begin("bootstrap")
    unit, units_N = bootstrap.units_of(test.patients, test.keys, test.units)
    weights_RN = bootstrap.resample(units_N, config.bootstrap, 0)
    drawn = bootstrap.over_seeds(test.labels, probabilities_SNC, weights_RN, on_progress=show.advance)
    tree = {
        **scored,
        "ci95": bootstrap.intervals(drawn),
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
            {"tuning": {"recipe": first.recipe_change, "tried": first.tried_recipes}}
            if first.tried_recipes
            else {}
        ),
        **seed_statistics(results, data),
        **({"probe": _probe(start, data, config, show)} if config.probe.enabled else {}),
        "checkpoint": {**start.describe(), "pretrained_on": seen},
        "split": data.counts(),
        "patients": count_patients(test.patients),
        "skipped": [{"key": key, "reason": reason} for key, reason in data.skipped],
        "warnings": list(data.warnings),
        "notes": list(data.notes),
        "data": {"path": data.path, "fingerprint": data.fingerprint, "columns": data.columns},
        "versions": versions(),
        "seconds": round(time.monotonic() - began, 1),
        "config": to_dict(config),
    }
    tested = external_test(results, data, config.bootstrap)
    if tested and data.external:
        tree["external"] = with_pretrained(tested.metrics, start, data.external.part, show)
    history = [row for result in results for row in result.history]
    # Where probes were made, their features.npz holds these features already.
    features = cached_features(start, data, ("test",), config.out.url, show.advance)["test"]
    show.begin("pictures")
    pictures = make_pictures(start, data, features, mistakes, show.say)
    return Evaluation(
        metrics=tree,
        keys=test.keys,
        patients=test.patients,
        labels_N=test.labels,
        probabilities_NC=probabilities_NC,
        history=history,
        pictures=pictures,
        probabilities_SNC=probabilities_SNC if len(results) > 1 else None,
        external=tested,
    )


def say_pretrained(seen: dict[str, Any], show: ProgressDisplay, row: str = "") -> None:
    """A warning where test or val images were seen in pretraining; one quiet line where it is not known."""
    if warning := wording.pretrained_warning(seen):
        show.say(f"warning: {row}{warning}")
    elif str(seen["how"]).startswith(pretraining_overlap.UNKNOWN):
        show.say(f"{row}{wording.pretrained_note(seen)}")


def with_pretrained(
    tree: dict[str, Any], start: StartingWeights, part: SplitPart, show: ProgressDisplay
) -> dict[str, Any]:
    """The external test, with how many of its images the weights were pretrained on."""
    seen = pretraining_overlap.count_overlap(start, {"test": part})
    warning = wording.external_overlap_warning(seen)
    if warning:
        show.say(f"warning: {tree['data']['path']}: {warning}")
    return {**tree, "pretrained_on": seen, "warnings": [*tree["warnings"], *([warning] if warning else [])]}


def external_test(
    results: Sequence[FinetuneResult], data: LabelledSet, resamples: int
) -> external_validation.ExternalTest | None:
    """The external set by the mean of the seeds' probabilities; None where none is given."""
    seed_probabilities = [
        result.external_probabilities for result in results if result.external_probabilities is not None
    ]
    if data.external is None or not seed_probabilities:
        return None
    return external_validation.score(
        data.external, np.stack(seed_probabilities), data.classes, resamples, evaluation_files.DIGITS
    )


def _probe(
    start: StartingWeights, data: LabelledSet, config: EvaluateConfig, show: ProgressDisplay
) -> dict[str, Any]:
    """Each probe, fitted on train, scored on test."""
    show.begin(f"features of {start.url}")
    rows = cached_features(start, data, ("train", "test"), config.out.url, show.advance)
    train, test = data.parts["train"], data.parts["test"]
    show.begin("linear probe and nearest neighbours")
    probabilities = linear_probe.fit_and_predict(
        rows["train"], train, rows["test"], len(data.classes), config.probe
    )
    _, units_N = bootstrap.units_of(test.patients, test.keys, test.units)
    return {
        method: linear_probe.probe_scores(
            test.labels, p_NC.round(evaluation_files.DIGITS), units_N, data.classes, config.bootstrap
        )
        for method, p_NC in probabilities.items()
    }


def headline(evaluation: Evaluation) -> str:
    """The scores that matter most, on one line."""

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
    """What the numbers were made with."""
    device, threads = best_device(), torch.get_num_threads()
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    )
    return {"python": platform.python_version(), **{p: version(p) for p in _PACKAGES}, "device": name}
