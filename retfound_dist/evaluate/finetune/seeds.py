"""Fine-tunes the same weights with several seeds, one after the other or in parallel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from retfound_dist.config.schema import EvaluateConfig, Finetune
from retfound_dist.estimate.loader_processes import finetuning_workers
from retfound_dist.evaluate.data.external_validation import load_with_external
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import NONE, StartingWeights, open_starting_weights
from retfound_dist.evaluate.finetune.finetuning import FinetuneResult, KeptSeed, best_device, finetune
from retfound_dist.evaluate.finetune.objectives import output_count
from retfound_dist.evaluate.finetune.parallel_runs import run_in_parallel
from retfound_dist.evaluate.scores import metrics
from retfound_dist.runtime.host_cores import usable_cores
from retfound_dist.runtime.progress import ProgressDisplay, epoch_line

Keep = Callable[[nn.Module, FinetuneResult], KeptSeed]
"""Stores the model of the chosen epoch."""


def finetune_seed(
    start: StartingWeights,
    data: LabelledSet,
    config: EvaluateConfig,
    recipe: Finetune,
    seed: int,
    show: ProgressDisplay,
    keep: Keep | None = None,
) -> tuple[FinetuneResult, nn.Module]:
    """Runs one fine-tuning. Returns its result and the model of the chosen epoch, which `keep` stores."""
    model = start.backbone.build(output_count(data), recipe.drop_path, seed).to(best_device())
    if recipe.drop_path and not start.backbone.takes_drop_path:
        family = start.backbone.family
        show.say(
            f"note: {family} has no stochastic depth: finetune.drop_path={recipe.drop_path:g} is not used"
        )
    weights = "random weights" if start.kind == NONE else start.url
    show.begin(f"fine-tuning {weights}, seed {seed}")
    result = finetune(
        model,
        start.backbone,
        data,
        recipe,
        seed,
        _workers(config),
        on_step=show.advance,
        on_epoch=lambda row: show.say(epoch_line(row, recipe.epochs)),
    )
    if keep:
        result = replace(result, kept=keep(model, result))
    return result, model


def _workers(config: EvaluateConfig) -> int:
    """Loader processes of one of the fine-tunings that run side by side."""
    if config.data.workers != "auto":
        return config.data.workers
    return finetuning_workers(usable_cores() / config.jobs, on_gpu=best_device().type == "cuda")


def finetune_other_seeds(
    start: StartingWeights,
    data: LabelledSet,
    config: EvaluateConfig,
    recipe: Finetune,
    show: ProgressDisplay,
    keep: Keep | None = None,
) -> list[FinetuneResult]:
    """Fine-tunes with all seeds except the first, `config.jobs` at a time. `keep` must be picklable."""
    seeds = config.seeds[1:]
    if config.jobs < 2 or len(seeds) < 2:
        return [finetune_seed(start, data, config, recipe, seed, show, keep)[0] for seed in seeds]
    show.begin(f"more seeds, {min(config.jobs, len(seeds))} at a time")
    # Only configs are sent, because arguments are pickled: weights and images can be gigabytes.
    tasks = {f"seed {seed}": partial(_seed_in_process, config, recipe, seed, keep) for seed in seeds}
    return list(run_in_parallel(tasks, config.jobs, config.threads, show).values())


def _seed_in_process(
    config: EvaluateConfig, recipe: Finetune, seed: int, keep: Keep | None, show: ProgressDisplay
) -> FinetuneResult:
    """Fine-tunes with one seed in a worker process, which reads weights and images itself."""
    start = open_starting_weights(config.checkpoint, config.model)
    data = load_with_external(
        config.data,
        config.external,
        start.image_size,
        interpolation=start.backbone.preparation.interpolation,
        task=config.task,
    )
    return finetune_seed(start, data, config, recipe, seed, show, keep)[0]


def seed_statistics(results: Sequence[FinetuneResult], data: LabelledSet) -> dict[str, Any]:
    """The scores of each seed, and their mean and standard deviation (n - 1)."""
    test = data.parts["test"]
    rows = []
    for result in results:
        scored = metrics.evaluate(test.labels, result.probabilities, data.classes)
        rows.append(
            {
                "seed": result.seed,
                "epoch": result.chosen_epoch,
                "legacy": scored["legacy"],
                "macro": scored["macro"],
                **_attention_note(result),
            }
        )
    spread: dict[str, Any] = {}
    for kind, names in (("legacy", metrics.LEGACY), ("macro", metrics.MACRO)):
        values = {name: [row[kind][name] for row in rows] for name in names}
        spread[kind] = {name: mean_and_std(seed_values) for name, seed_values in values.items()}
    return {"per_seed": rows, "over_seeds": spread}


def _attention_note(result: FinetuneResult) -> dict[str, Any]:
    if result.attention is None:
        return {}
    return {"attention": {"epoch": result.attention.epoch, "val_auroc": result.attention.val_auroc}}


def mean_and_std(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean and standard deviation (n - 1); None where a value is not defined."""
    defined = [value for value in values if value is not None]
    # No mean of some seeds: it would be read as the mean of all.
    if len(defined) < len(values):
        return {"mean": None, "std": None}
    std = float(np.std(defined, ddof=1)) if len(defined) > 1 else None
    return {"mean": float(np.mean(defined)), "std": std}


def measured_speed(results: Sequence[FinetuneResult], images: int) -> dict[str, float]:
    """Images a second of the test part's prediction, and seconds of fine-tuning with one seed: the means."""
    predicting = sum(result.test_seconds for result in results)
    training = sum(row["seconds"] for result in results for row in result.history)
    return {
        "test_images_per_s": round(images * len(results) / max(predicting, 1e-9), 1),
        "finetune_s": round(training / len(results), 1),
    }
