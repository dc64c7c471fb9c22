"""`retfound evaluate` and `retfound compare` where the task is not one class of several.

The commands open weights and sets, and then call these functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from retfound_dist.config.loading import to_dict
from retfound_dist.config.schema import CompareConfig, EvalOut, EvaluateConfig
from retfound_dist.errors import ConfigError, RecordError, StorageError
from retfound_dist.evaluate.classifier import classifier_file
from retfound_dist.evaluate.classifier.best_row import classifier_lines, keep_best_classifier
from retfound_dist.evaluate.data.external_validation import load_with_external
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.pretraining_overlap import overlap_line
from retfound_dist.evaluate.data.starting_weights import StartingWeights, open_starting_weights
from retfound_dist.evaluate.finetune.parallel_runs import run_in_parallel
from retfound_dist.evaluate.report.backbone_table import backbone_tables
from retfound_dist.evaluate.report.text_tables import markdown_table
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.results.existing_results import check_out_url, read_matching
from retfound_dist.evaluate.task_results.task_comparison import task_comparison
from retfound_dist.evaluate.task_results.task_evaluation import TaskEvaluation
from retfound_dist.evaluate.task_results.task_files import read_task, read_task_metrics, write_task
from retfound_dist.evaluate.task_results.task_page import task_comparison_page, task_page
from retfound_dist.evaluate.task_results.task_run import run_task
from retfound_dist.evaluate.task_results.task_tables import (
    task_probe_tables,
    task_score_table,
    terminal_lines,
)
from retfound_dist.evaluate.task_results.task_wording import task_headline
from retfound_dist.io import storage
from retfound_dist.runtime.progress import ProgressDisplay

Versions = Mapping[str, str]


def evaluate_task(
    start: StartingWeights,
    data: LabelledSet,
    config: EvaluateConfig,
    show: ProgressDisplay,
    versions: Versions,
    force: bool,
) -> None:
    """Evaluate and write to `config.out.url`, if the same evaluation is not there yet."""
    url, keep = config.out.url, config.finetune.keep is not False
    existing = _existing_row(start, data, config, show, force)
    if existing:
        if not storage.exists(storage.join(url, evaluation_files.REPORT)):
            storage.write_text(storage.join(url, evaluation_files.REPORT), task_page(existing))
        show.say(
            f"already evaluated, --force does it again; {task_headline(existing.metrics, existing.facts)}"
        )
        if keep and not classifier_file.has_classifier(url):
            show.say("note: it has no classifier/, which --force makes")
    else:
        _evaluate_and_write(start, data, config, show, versions, keep)
        if keep:
            show.say(f"classifier: {classifier_file.classifier_url(url)}")
    show.say(f"report: {url.rstrip('/')}/{evaluation_files.REPORT}")


def compare_task(
    config: CompareConfig,
    starts: Mapping[str, StartingWeights],
    sets: Mapping[str, LabelledSet],
    show: ProgressDisplay,
    versions: Versions,
    force: bool,
    report: str,
    warning: str = "",
) -> None:
    """Evaluate each row, and write the page, table.md and compare.json. `sets`: row -> its labelled set.

    `report`: URL of the page. `warning`: that rows differ in tokens; empty where they do not.
    """
    rows = _evaluate_rows(config, starts, sets, show, versions, force)
    show.begin("comparing")
    tree = task_comparison(rows, config.bootstrap)
    if warning:
        tree["sentences"] += [f"{warning[0].upper()}{warning[1:]}."]
    trees = {name: row.metrics for name, row in rows.items()}
    facts = next(iter(rows.values())).facts
    storage.write_text(report, task_comparison_page(rows, tree["sentences"], tree["ties"]))
    tables = [
        task_score_table(facts, trees, tree["ties"]),
        *task_probe_tables(facts, trees),
        *backbone_tables(trees),
    ]
    storage.write_text(
        storage.join(config.out.url, "table.md"),
        "\n".join(markdown_table(table["title"], table) for table in tables),
    )
    tree["config"] = to_dict(config)
    # Last, because compare.json means that the comparison is complete.
    storage.write_json(storage.join(config.out.url, "compare.json"), tree)
    for line in [*terminal_lines(facts, trees), *tree["sentences"]]:
        show.say(line)
    for line in classifier_lines(config, rows):
        show.say(line)
    show.say(f"report: {report}")


def task_row_config(config: CompareConfig, row: str) -> EvaluateConfig:
    """The evaluation of one row."""
    return EvaluateConfig(
        checkpoint=config.weights[row],
        data=config.data,
        out=EvalOut(url=storage.join(config.out.url, row)),
        seeds=config.seeds,
        task=config.task,
        model=config.model,
        finetune=config.finetune,
        probe=config.probe,
        threads=config.threads,
        bootstrap=config.bootstrap,
    )


def _evaluate_rows(
    config: CompareConfig,
    starts: Mapping[str, StartingWeights],
    sets: Mapping[str, LabelledSet],
    show: ProgressDisplay,
    versions: Versions,
    force: bool,
) -> dict[str, TaskEvaluation]:
    """Each row: reused if it has the same weights, images and settings, else made."""
    keep = config.finetune.keep is not False
    rows: dict[str, TaskEvaluation] = {}
    missing: dict[str, EvaluateConfig] = {}
    for name, start in starts.items():
        settings = task_row_config(config, name)
        try:
            existing = _existing_row(start, sets[name], settings, show, force=False, row=f"{name}: ")
        except (ConfigError, RecordError):
            # As with classes, `force` makes only rows again that have other settings or are damaged.
            if not force:
                raise
            existing = None
        if existing:
            show.say(f"{name}: already evaluated; {task_headline(existing.metrics, existing.facts)}")
            rows[name] = existing
        else:
            check_out_url(settings.out.url, force)
            missing[name] = settings
    if config.jobs > 1 and len(missing) > 1:
        show.begin(f"comparing rows, {min(config.jobs, len(missing))} at a time")
        tasks = {name: partial(_make_in_process, one, dict(versions), keep) for name, one in missing.items()}
        run_in_parallel(tasks, config.jobs, config.threads, show)
        rows |= {name: _read_back(settings) for name, settings in missing.items()}
    else:
        for name, settings in missing.items():
            show.say(f"{name}: {starts[name].url}")
            rows[name] = _evaluate_and_write(starts[name], sets[name], settings, show, versions, keep)
            keep_best_classifier(config, rows)
    keep_best_classifier(config, rows)
    return {name: rows[name] for name in starts}


def _existing_row(
    start: StartingWeights,
    data: LabelledSet,
    config: EvaluateConfig,
    show: ProgressDisplay,
    force: bool,
    row: str = "",
) -> TaskEvaluation | None:
    """The evaluation at `out.url`; ConfigError where another one is there. None with `force`.

    `row`: the name of a row of a comparison, with a colon.
    """
    evaluation = read_matching(start, data, config, force, show.warn, read_task_metrics, read_task)
    if not evaluation:
        return None
    if evaluation.history_fault:
        show.warn(f"{row}{evaluation.history_fault}")
    overlap = evaluation.metrics["checkpoint"].get("pretrained_on")
    if overlap and (line := overlap_line(overlap, row)):
        show.say(line)
    return evaluation


def _evaluate_and_write(
    start: StartingWeights,
    data: LabelledSet,
    config: EvaluateConfig,
    show: ProgressDisplay,
    versions: Versions,
    keep: bool,
) -> TaskEvaluation:
    """Run an evaluation, write all its files to `out.url`, show its headline. `keep`: also its weights."""
    evaluation = run_task(start, data, config, show, versions, keep)
    write_task(config.out.url, evaluation, data, task_page(evaluation))
    show.say(task_headline(evaluation.metrics, evaluation.facts))
    return evaluation


def _make_in_process(
    config: EvaluateConfig, versions: dict[str, str], keep: bool, show: ProgressDisplay
) -> None:
    """One row in a worker process, which reads weights and images itself."""
    start = open_starting_weights(config.checkpoint, config.model)
    data = load_with_external(
        config.data,
        None,
        start.image_size,
        interpolation=start.backbone.preparation.interpolation,
        task=config.task,
    )
    _evaluate_and_write(start, data, config, show, versions, keep)


def _read_back(config: EvaluateConfig) -> TaskEvaluation:
    evaluation = read_task(config.out.url)
    if evaluation is None:
        raise StorageError(f"the evaluation just written to {config.out.url} cannot be read back")
    return evaluation
