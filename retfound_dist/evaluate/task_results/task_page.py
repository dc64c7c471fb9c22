"""`report.html` of a task: one evaluation, or several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retfound_dist.evaluate.report.backbone_table import backbone_tables
from retfound_dist.evaluate.report.evaluation_page import empty_context, render
from retfound_dist.evaluate.scores import wording
from retfound_dist.evaluate.task_results import task_wording
from retfound_dist.evaluate.task_results.task_evaluation import TaskEvaluation
from retfound_dist.evaluate.task_results.task_plots import curve_plots, interval_plots, prediction_plots
from retfound_dist.evaluate.task_results.task_tables import target_table, task_probe_tables, task_score_table

_PREDICTIONS = "What is true, and what the network predicts, for the images of the test part."


def task_page(evaluation: TaskEvaluation) -> str:
    """The HTML page of one evaluation."""
    metrics, facts = evaluation.metrics, evaluation.facts
    # Tables and plots take the rows of a comparison. This page has one row, which needs no name.
    row, metrics_of_row = {"": evaluation}, {"": metrics}
    context = {
        **empty_context(),
        "warnings": task_wording.task_warnings(metrics, facts),
        "tables": [
            task_score_table(facts, metrics_of_row),
            target_table(metrics, facts),
            *task_probe_tables(facts, metrics_of_row),
            *backbone_tables(metrics_of_row),
        ],
        "plots": curve_plots(row),
        "sections": [("Predictions", _PREDICTIONS, prediction_plots(evaluation))],
        "facts": setup_facts(metrics),
    }
    return render(
        title=f"Evaluation on {metrics['data']['path']}",
        subtitle=f"Starting weights: {wording.describe_start(metrics['checkpoint'])}; predicts "
        f"{task_wording.describe_task(facts)}",
        alarms=[],
        summary=[
            *task_wording.summary_sentences(metrics, facts),
            "This page cannot show whether pretraining helped: run retfound compare for that.",
        ],
        **context,
    )


def task_comparison_page(
    rows: Mapping[str, TaskEvaluation], sentences: Sequence[str], ties: Mapping[str, Sequence[str]]
) -> str:
    """The HTML page of several evaluations.

    `rows`: name of the row -> its evaluation; `sentences`: what the comparison showed; `ties`: score -> the
    rows that are not clearly worse than the best one.
    """
    first = next(iter(rows.values()))
    facts, trees = first.facts, {name: row.metrics for name, row in rows.items()}
    plotted_rows = dict(list(rows.items())[:_MOST_PLOTTED])
    context = {
        **empty_context(),
        "warnings": _row_warnings(rows),
        "tables": [
            task_score_table(facts, trees, ties),
            *(target_table(row.metrics, facts, name) for name, row in plotted_rows.items()),
            *task_probe_tables(facts, trees),
            *backbone_tables(trees),
        ],
        "lead": interval_plots(rows),
        "plots": curve_plots(plotted_rows),
        "sections": [
            (f"Predictions of “{name}”", _PREDICTIONS, prediction_plots(row))
            for name, row in plotted_rows.items()
        ],
        "left_out": len(rows) - len(plotted_rows),
        "facts": setup_facts(first.metrics),
    }
    test = f"{first.metrics['split']['test']} test images" + (
        f" of {first.metrics['patients']} patients" if first.metrics["patients"] else ""
    )
    return render(
        "compare",
        title=f"Starting weights compared on {first.metrics['data']['path']}",
        subtitle=f"{len(rows)} starting weights, the same fine-tuning for each, {test}; predicted: "
        f"{task_wording.describe_task(facts)}",
        alarms=[],
        summary=[*sentences, task_wording.describe_task_intervals(first.metrics)],
        **context,
    )


_MOST_PLOTTED = 8
"""Rows with plots of their own: as many as there are colours."""


def _row_warnings(rows: Mapping[str, TaskEvaluation]) -> list[str]:
    """The warnings of all rows, once each; those of single rows with their names."""
    names_by_line: dict[str, list[str]] = {}
    for name, row in rows.items():
        for line in task_wording.task_warnings(row.metrics, row.facts):
            names_by_line.setdefault(line, []).append(f"“{name}”")
    return [
        line if len(names) == len(rows) else f"{', '.join(names)}: {line}"
        for line, names in names_by_line.items()
    ]


def setup_facts(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Pairs of name and text: how this was made."""
    split = metrics["split"]
    parts = ", ".join(
        f"{name} {split[name]} images"
        + (f" of {split['patients'][name]} patients" if split["patients"][name] else "")
        for name in ("train", "val", "test")
    )
    unused = ("try_recipes", "label_smoothing", "mixup", "cutmix", "class_weights", "keep", "pool")
    recipe = {key: value for key, value in metrics["config"]["finetune"].items() if key not in unused}
    if recipe.get("method") != "lora":
        recipe = {key: value for key, value in recipe.items() if not key.startswith("lora_")}
    task = metrics["task"]
    return [
        ("Labelled set", metrics["data"]["path"]),
        ("Task", f"{task['kind']}; {', '.join(task['targets'])}"),
        ("Parts", f"{parts}; split {wording.describe_split(split['by'], split.get('known_by', {}))}"),
        *([("Columns", metrics["data"]["columns"])] if metrics["data"].get("columns") else []),
        ("Fine-tuning", ", ".join(f"{key} {value or 'none'}" for key, value in recipe.items())),
        ("Seen in pretraining", wording.pretrained_note(metrics["checkpoint"].get("pretrained_on"))),
        ("Seeds", ", ".join(map(str, metrics["seeds"]))),
        ("Versions", ", ".join(f"{key} {value}" for key, value in metrics["versions"].items())),
    ]
