"""The cells of a comparison: one evaluation for each row and each choice of labels, made once.

OUT/<row>/                      with all labels, or with `data.label_share` of them
OUT/labels_0.1/<row>/           with another share
OUT/shots_4/draw_0/<row>/       with 4 patients of each class
OUT/<row>/features.npz          frozen features of the whole set; all cells of the row use them
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from retfound_dist.config.schema import CompareConfig, EvalOut, EvaluateConfig
from retfound_dist.evaluate.classifier.best_row import keep_best_classifier
from retfound_dist.evaluate.commands.comparison_row import (
    evaluate_and_write,
    read_back,
    reusable_evaluation,
    show_existing,
)
from retfound_dist.evaluate.data.external_validation import load_with_external
from retfound_dist.evaluate.data.label_subset import whole_train, with_label_subset
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import StartingWeights, open_starting_weights
from retfound_dist.evaluate.finetune.parallel_runs import run_in_parallel
from retfound_dist.evaluate.probe.frozen_features import cached_features
from retfound_dist.evaluate.report.label_efficiency import percent
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.results.existing_results import check_out_url, read_matching_evaluation
from retfound_dist.io import storage
from retfound_dist.runtime.progress import ProgressDisplay

Labels = tuple[float, int, int]
"""Share, shots and draw of a cell."""
Input = tuple[int, str]
"""Side and interpolation: rows with the same ones share their decoded images."""
# In a worker process: the whole set that it has decoded last. Few shots are many short cells of one set.
_decoded: dict[str, LabelledSet] = {}


@dataclass(frozen=True)
class Cell:
    """One evaluation of a comparison: a row, and the labels that it is fine-tuned with."""

    row: str
    share: float
    shots: int = 0
    """Patients of each class; 0: all of the share."""
    draw: int = 0

    @property
    def labels(self) -> Labels:
        """Share, shots and draw."""
        return self.share, self.shots, self.draw

    @property
    def title(self) -> str:
        """The cell in one phrase, for the terminal."""
        if self.shots:
            return f"{self.row}, {self.shots} a class, draw {self.draw}"
        return self.row if self.share == 1 else f"{self.row}, {percent(self.share)} of the labels"


def list_cells(config: CompareConfig, shots: Sequence[int]) -> list[Cell]:
    """All cells; the whole comparison first, so that it is complete if the command is stopped."""
    labels = [_main_labels(config)]
    labels += [(share, 0, 0) for share in config.label_shares]
    labels += [(1.0, count, draw) for count in shots for draw in range(config.shot_draws)]
    return [Cell(row, *choice) for choice in dict.fromkeys(labels) for row in config.weights]


def _main_labels(config: CompareConfig) -> Labels:
    return config.data.label_share, config.data.label_shots, config.data.shot_draw


def group_by_share(
    config: CompareConfig, evaluations: Mapping[Cell, Evaluation]
) -> dict[float, dict[str, Evaluation]]:
    """Share of labels -> row -> its evaluation; the whole comparison first."""
    groups: dict[float, dict[str, Evaluation]] = {}
    for cell, evaluation in evaluations.items():
        if not cell.shots or cell.labels == _main_labels(config):
            groups.setdefault(cell.share, {})[cell.row] = evaluation
    return groups


def group_by_shots(
    config: CompareConfig, evaluations: Mapping[Cell, Evaluation]
) -> dict[int, dict[str, list[Evaluation]]]:
    """Patients a class -> row -> the evaluation of each draw, without the whole comparison."""
    groups: dict[int, dict[str, list[Evaluation]]] = {}
    for cell, evaluation in evaluations.items():
        if cell.shots and cell.labels != _main_labels(config):
            groups.setdefault(cell.shots, {}).setdefault(cell.row, []).append(evaluation)
    return groups


def cell_config(config: CompareConfig, cell: Cell) -> EvaluateConfig:
    """The evaluation of one cell."""
    folder, data, seeds = config.out.url, config.data, config.seeds
    if cell.labels != _main_labels(config):
        folder = storage.join(
            folder, f"shots_{cell.shots}/draw_{cell.draw}" if cell.shots else f"labels_{cell.share:g}"
        )
        # Each draw has other images, so more seeds for each would cost much and say little.
        seeds = (seeds[cell.draw % len(seeds)],) if cell.shots else seeds
    return EvaluateConfig(
        checkpoint=config.weights[cell.row],
        data=replace(data, label_share=cell.share, label_shots=cell.shots, shot_draw=cell.draw),
        external=config.external,
        out=EvalOut(url=storage.join(folder, cell.row)),
        seeds=seeds,
        model=config.model,
        finetune=config.finetune,
        probe=config.probe,
        clinical=config.clinical,
        threads=config.threads,
        bootstrap=config.bootstrap,
    )


def row_config(config: CompareConfig, row: str) -> EvaluateConfig:
    """The evaluation of one row of the whole comparison."""
    return cell_config(config, Cell(row, *_main_labels(config)))


def input_of(start: StartingWeights) -> Input:
    """How the row sees images."""
    return start.image_size, start.backbone.preparation.interpolation


def evaluate_cells(
    config: CompareConfig,
    cells: Sequence[Cell],
    starts: Mapping[str, StartingWeights],
    sets: Mapping[Input, LabelledSet],
    show: ProgressDisplay,
    force: bool,
) -> dict[Cell, Evaluation]:
    """The evaluation of each cell: reused if it has the same weights, images and settings, else made."""
    done: dict[Cell, Evaluation] = {}
    missing: dict[Cell, EvaluateConfig] = {}
    for cell in cells:
        start, settings = starts[cell.row], cell_config(config, cell)
        data = with_label_subset(sets[input_of(start)], settings.data)
        evaluation = _existing_cell(start, data, settings, cell, show)
        if evaluation:
            # A row has the same images of val and test in every draw, so one line of its overlap is enough.
            show_existing(evaluation, cell.title, show, with_overlap=not cell.shots)
            done[cell] = evaluation
        else:
            check_out_url(settings.out.url, force)
            # Raises where another evaluation is there: now, and not after other cells have run for hours.
            read_matching_evaluation(start, data, settings, force, show.warn)
            missing[cell] = settings
    folders = {row: _features_folder(config, cells, row) for row in config.weights}
    if config.jobs > 1 and len(missing) > 1:
        _make_in_parallel(config, missing, folders, show)
        # Cells of other processes are read from their files: only configs are sent between processes.
        done |= {cell: read_back(settings) for cell, settings in missing.items()}
    else:
        for cell, settings in missing.items():
            start = starts[cell.row]
            show.say(f"{cell.title}: {start.url}")
            data = with_label_subset(sets[input_of(start)], settings.data)
            keep = keeps_classifier(config, cell)
            done[cell] = evaluate_and_write(start, data, settings, show, folders[cell.row], keep)
            # Now, and not at the end: the fine-tuned weights of many rows would fill a disk.
            keep_best_classifier(config, _whole_rows(config, done))
    keep_best_classifier(config, _whole_rows(config, done))
    return {cell: done[cell] for cell in cells}


def keeps_classifier(config: CompareConfig, cell: Cell) -> bool:
    """Whether the fine-tuned weights of a cell are stored: those of the whole comparison, unless none are."""
    return config.finetune.keep is not False and cell.labels == _main_labels(config)


def _whole_rows(config: CompareConfig, done: Mapping[Cell, Evaluation]) -> dict[str, Evaluation]:
    """The rows of the whole comparison that are complete."""
    return {cell.row: row for cell, row in done.items() if cell.labels == _main_labels(config)}


def _existing_cell(
    start: StartingWeights, data: LabelledSet, settings: EvaluateConfig, cell: Cell, show: ProgressDisplay
) -> Evaluation | None:
    evaluation = reusable_evaluation(start, data, settings, show)
    # Intervals over draws need the predictions of probes.
    if evaluation and cell.shots and settings.probe.enabled and not evaluation.probe_probabilities:
        return None
    return evaluation


def _features_folder(config: CompareConfig, cells: Sequence[Cell], row: str) -> str:
    """The folder with features of the whole set, which the row's cells share.

    Empty where all cells use a small share of the labels: features of the other images are not needed.
    """
    needs_whole = any(cell.shots or cell.share == 1 for cell in cells)
    return storage.join(config.out.url, row) if needs_whole else ""


def _make_in_parallel(
    config: CompareConfig,
    missing: Mapping[Cell, EvaluateConfig],
    folders: Mapping[str, str],
    show: ProgressDisplay,
) -> None:
    """Evaluate cells into their folders, `config.jobs` at a time."""
    # First, because several processes with the same row would each compute its features.
    shared = {
        cell.row: settings
        for cell, settings in missing.items()
        if settings.data != whole_train(settings.data)
    }
    encoding = {
        f"{row}, features": partial(_encode_in_process, settings, folders[row])
        for row, settings in shared.items()
        if folders[row]
    }
    if encoding:
        show.begin(f"features of {len(encoding)} rows, {min(config.jobs, len(encoding))} at a time")
        run_in_parallel(encoding, config.jobs, config.threads, show)
    show.begin(f"comparing rows, {min(config.jobs, len(missing))} at a time")
    tasks = {
        cell.title: partial(make_in_process, settings, folders[cell.row], keeps_classifier(config, cell))
        for cell, settings in missing.items()
    }
    run_in_parallel(tasks, config.jobs, config.threads, show)


def _encode_in_process(settings: EvaluateConfig, folder: str, show: ProgressDisplay) -> None:
    """Compute the features of the whole set, if the folder does not have them."""
    start, data = _open_in_process(settings)
    parts = ("train", "test") if settings.probe.enabled else ("test",)
    show.begin("features")
    cached_features(start, data, parts, folder, show.advance, of_whole_set=True)


def make_in_process(settings: EvaluateConfig, folder: str, keep: bool, show: ProgressDisplay) -> None:
    """`evaluate_and_write` in a worker process; `folder`: `whole_features`."""
    start, data = _open_in_process(settings)
    evaluate_and_write(start, data, settings, show, folder, keep)


def _open_in_process(settings: EvaluateConfig) -> tuple[StartingWeights, LabelledSet]:
    # This is a worker process: it reads weights and images itself, so that they are not pickled.
    start = open_starting_weights(settings.checkpoint, settings.model)
    whole, (size, interpolation) = whole_train(settings.data), input_of(start)
    key = repr((whole, settings.external, size, interpolation))
    if key not in _decoded:
        _decoded.clear()
        _decoded[key] = load_with_external(whole, settings.external, size, interpolation=interpolation)
    return start, with_label_subset(_decoded[key], settings.data)
