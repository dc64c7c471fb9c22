"""Makes the cells of a suite: each is one row of the comparison on one labelled set, made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial

from retfound_dist.config.schema import CompareConfig, CompareOut, EvalData, EvaluateConfig, SuiteConfig
from retfound_dist.evaluate.commands.comparison_cells import Input, input_of, make_in_process, row_config
from retfound_dist.evaluate.commands.comparison_row import (
    evaluate_and_write,
    read_back,
    reusable_evaluation,
    show_existing,
)
from retfound_dist.evaluate.commands.set_messages import load_labelled
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import StartingWeights
from retfound_dist.evaluate.finetune.parallel_runs import run_in_parallel
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.results.existing_results import check_out_url, read_matching_evaluation
from retfound_dist.evaluate.suite.cell_shares import SuiteCell
from retfound_dist.io import storage
from retfound_dist.runtime.progress import ProgressDisplay

Starts = Mapping[str, StartingWeights]
"""Row -> the weights that its evaluations start from."""


def set_comparison(config: SuiteConfig, name: str) -> CompareConfig:
    """The comparison of all rows on one set, in OUT/NAME."""
    set_config = config.sets[name]
    return CompareConfig(
        weights=config.weights,
        data=EvalData(**{f.name: getattr(set_config, f.name) for f in fields(EvalData)}),
        external=set_config.external,
        out=CompareOut(url=storage.join(config.out.url, name)),
        seeds=config.seeds,
        sizes=config.sizes,
        model=config.model,
        finetune=config.finetune,
        probe=config.probe,
        jobs=config.jobs,
        threads=config.threads,
        bootstrap=config.bootstrap,
    )


def make_cells(
    config: SuiteConfig, cells: Sequence[SuiteCell], starts: Starts, show: ProgressDisplay, force: bool
) -> dict[SuiteCell, Evaluation]:
    """The evaluation of each cell: reused where `read_cells` finds it complete, else made.

    With several jobs, cells of all sets are made side by side. ConfigError where another evaluation is in a
    cell's folder, except with `force`.
    """
    done: dict[SuiteCell, Evaluation] = {}
    missing: dict[SuiteCell, EvaluateConfig] = {}
    for name in dict.fromkeys(cell.set_name for cell in cells):
        configs_of_set = {cell: cell_config(config, cell) for cell in cells if cell.set_name == name}
        # Also with several jobs, whose processes decode their own images: `read_cells` compares these images
        # with those of earlier evaluations.
        images = _load_inputs(configs_of_set, starts, show)
        complete, to_make = read_cells(configs_of_set, starts, images, show, force)
        done |= complete
        if config.jobs > 1:
            missing |= to_make
            continue
        # Set by set, so that only one decoded set is in memory.
        keep = config.finetune.keep == "all"
        for cell, settings in to_make.items():
            start = starts[cell.row]
            show.say(f"{cell.title}: {start.url}")
            done[cell] = evaluate_and_write(start, images[input_of(start)], settings, show, keep=keep)
    if missing:
        _make_in_parallel(config, missing, show)
        done |= {cell: read_back(settings) for cell, settings in missing.items()}
    return {cell: done[cell] for cell in cells}


def check_cells(
    config: SuiteConfig, cells: Sequence[SuiteCell], starts: Starts, show: ProgressDisplay, force: bool
) -> tuple[dict[SuiteCell, Evaluation], list[SuiteCell]]:
    """The cells that `read_cells` finds complete, and all others. Nothing is made."""
    done: dict[SuiteCell, Evaluation] = {}
    for name in dict.fromkeys(cell.set_name for cell in cells):
        configs_of_set = {cell: cell_config(config, cell) for cell in cells if cell.set_name == name}
        done |= read_cells(configs_of_set, starts, _load_inputs(configs_of_set, starts, show), show, force)[0]
    return done, [cell for cell in cells if cell not in done]


def cell_config(config: SuiteConfig, cell: SuiteCell) -> EvaluateConfig:
    """The evaluation of one cell, in OUT/SET/ROW."""
    return row_config(set_comparison(config, cell.set_name), cell.row)


def read_cells(
    configs: Mapping[SuiteCell, EvaluateConfig],
    starts: Starts,
    images: Mapping[Input, LabelledSet],
    show: ProgressDisplay,
    force: bool,
) -> tuple[dict[SuiteCell, Evaluation], dict[SuiteCell, EvaluateConfig]]:
    """The cells that are complete with the same weights, images and settings, and the settings of others."""
    complete: dict[SuiteCell, Evaluation] = {}
    missing: dict[SuiteCell, EvaluateConfig] = {}
    for cell, settings in configs.items():
        start = starts[cell.row]
        data = images[input_of(start)]
        if evaluation := reusable_evaluation(start, data, settings, show):
            show_existing(evaluation, cell.title, show)
            complete[cell] = evaluation
        else:
            check_out_url(settings.out.url, force)
            # Raises where another evaluation is there: now, and not after other cells have run for hours.
            read_matching_evaluation(start, data, settings, force, show.warn)
            missing[cell] = settings
    return complete, missing


def _load_inputs(
    configs: Mapping[SuiteCell, EvaluateConfig], starts: Starts, show: ProgressDisplay
) -> dict[Input, LabelledSet]:
    """One set, decoded once for each input that its rows have."""
    settings = next(iter(configs.values()))
    backbones = {input_of(starts[cell.row]): starts[cell.row].backbone for cell in configs}
    return {
        key: load_labelled(settings.data, backbones[key], show, settings.external)
        for key in sorted(backbones)
    }


def _make_in_parallel(
    config: SuiteConfig, missing: Mapping[SuiteCell, EvaluateConfig], show: ProgressDisplay
) -> None:
    """Evaluate cells into their folders, `config.jobs` at a time."""
    show.begin(f"{len(missing)} cells, {min(config.jobs, len(missing))} at a time")
    tasks = {
        cell.title: partial(make_in_process, settings, "", config.finetune.keep == "all")
        for cell, settings in missing.items()
    }
    run_in_parallel(tasks, config.jobs, config.threads, show)
