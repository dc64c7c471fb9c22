"""The training curves of a page, for fine-tuning and pretraining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from retfound_dist.errors import StorageError
from retfound_dist.evaluate.data.starting_weights import run_url
from retfound_dist.evaluate.report import figures
from retfound_dist.evaluate.report.figures import Line, PointMarker
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.scores import wording
from retfound_dist.formats import run_folder
from retfound_dist.formats.log_rows import LossStep, each_step_once, read_log

PLOTTED_SCORES = ("auroc", "aupr", "balanced_accuracy")


@dataclass(frozen=True)
class Plot:
    """A figure with title and note. `legend`: pairs of a colour index and a name."""

    title: str
    svg: Markup
    note: str = ""
    legend: Sequence[tuple[int, str]] = field(default=())
    shapes: bool = False
    """The legend shows markers of classes instead of lines."""


def finetune_plots(evaluation: Evaluation) -> list[Plot]:
    """Losses and validation AUROC over epochs, with the chosen epoch."""
    losses, scores, marks = [], [], []
    for seed_row in evaluation.metrics["per_seed"]:
        rows = [r for r in evaluation.history if r["seed"] == seed_row["seed"]]
        for colour_index, key in enumerate(("train_loss", "val_loss")):
            values = {r["epoch"]: r[key] for r in rows if r[key] is not None}
            if values:
                losses.append(Line(list(values), list(values.values()), colour_index))
        values = {r["epoch"]: r["val_auroc"] for r in rows}
        if values and all(score is not None for score in values.values()):
            scores.append(Line(list(values), list(values.values()), 2))
            if seed_row["epoch"] in values:
                marks.append(PointMarker(seed_row["epoch"], values[seed_row["epoch"]], "kept", 2))
    plots = [
        Plot(
            "Fine-tuning: loss",
            Markup(figures.line_chart(losses, "epoch", "cross entropy", integer_x=True)),
            "Training uses augmented images and smoothed labels, so its loss cannot reach 0.",
            [(0, "train"), (1, "validation")]
            # More lines than seeds means that there are also validation losses.
            if len(losses) > len(evaluation.metrics["per_seed"])
            else [(0, "train")],
        )
    ]
    if scores:
        plots.append(
            Plot(
                "Fine-tuning: validation AUROC",
                Markup(figures.line_chart(scores, "epoch", "macro AUROC", marks, integer_x=True)),
                "The epoch is chosen by this score. The test part is used once, with the chosen epoch.",
            )
        )
    return plots


def compared_curves(rows: Mapping[str, Evaluation]) -> list[Plot]:
    """Fine-tuning curves, one colour for each row."""
    legend = list(enumerate(rows))
    training = {
        "train_loss": ("Fine-tuning: training loss", "cross entropy"),
        "val_auroc": ("Fine-tuning: validation AUROC", "macro AUROC"),
    }
    plots = []
    for key, (title, label) in training.items():
        lines = []
        for colour_index, row in enumerate(rows.values()):
            for seed_row in row.metrics["per_seed"]:
                points = [
                    (r["epoch"], r[key])
                    for r in row.history
                    if r["seed"] == seed_row["seed"] and r[key] is not None
                ]
                if points:
                    lines.append(
                        figures.class_line([p[0] for p in points], [p[1] for p in points], colour_index)
                    )
        if lines:
            plots.append(
                Plot(
                    title,
                    Markup(figures.line_chart(lines, "epoch", label, integer_x=True)),
                    "One line for each seed.",
                    legend,
                )
            )
    return plots


def whisker_plots(metrics: Mapping[str, Mapping[str, Any]]) -> list[Plot]:
    """The most important scores, with an interval for each row."""
    plots = []
    classes = len(next(iter(metrics.values()))["classes"])
    chance = {"auroc": 0.5, "balanced_accuracy": 1 / classes}
    for name in PLOTTED_SCORES:
        values = [m["macro"][name] for m in metrics.values()]
        spans = [m["ci95"]["macro"][name] for m in metrics.values()]
        svg = figures.interval_chart(list(metrics), values, spans, wording.LABELS[name], chance.get(name))
        note = "Dotted line: guessing." if name in chance else ""
        plots.append(
            Plot(
                f"{wording.LABELS[name][0].upper()}{wording.LABELS[name][1:]} with 95 % interval",
                Markup(svg),
                note,
            )
        )
    return plots


def pretraining_plots(metrics: Mapping[str, Mapping[str, Any]]) -> list[Plot]:
    """The pretraining loss of each run, with the evaluated checkpoints marked."""
    plots = []
    runs: dict[str, list[tuple[str, int]]] = {}
    for name, tree in metrics.items():
        run = run_url(tree["checkpoint"]["url"])
        if run and tree["checkpoint"]["step"] is not None:
            runs.setdefault(run, []).append((name, tree["checkpoint"]["step"]))
    colours = {name: i for i, name in enumerate(metrics)}
    for run, checkpoints in runs.items():
        steps, losses = read_losses(run)
        if not steps:
            continue
        marks = [
            PointMarker(step, float(np.interp(step, steps, losses)), name or f"step {step:,}", colours[name])
            for name, step in checkpoints
        ]
        colour = figures.COLOURS - 2
        svg = figures.line_chart([Line(steps, losses, colour)], "step", "reconstruction loss", marks)
        plots.append(
            Plot(
                "Pretraining: loss on removed patches",
                Markup(svg),
                f"Run {run}. Dots: the checkpoints evaluated here.",
            )
        )
    return plots


def read_losses(run: str) -> tuple[list[int], list[float]]:
    """Steps and losses in metrics.jsonl of a run, by the last line of each step; empty where unreadable."""
    try:
        rows = each_step_once(read_log(run, run_folder.METRICS, LossStep).rows)
    # The page is also drawn without the log: the run may be deleted or not reachable.
    except StorageError:
        return [], []
    rows = [row for row in rows if row["loss"] is not None]
    return [row["step"] for row in rows], [row["loss"] for row in rows]
