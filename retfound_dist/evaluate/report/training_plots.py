"""The training curves of a page: fine-tuning and pretraining, each a figure with title, note and legend."""

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
from retfound_dist.evaluate.results.evaluation_files import Evaluation
from retfound_dist.evaluate.scores import wording
from retfound_dist.formats import run_folder
from retfound_dist.formats.log_rows import LossStep, each_step_once, read_log

COMPARED = ("auroc", "aupr", "balanced_accuracy")


@dataclass(frozen=True)
class Plot:
    """A figure with title and note; `legend` pairs the index of a colour with a name."""

    title: str
    svg: Markup
    note: str = ""
    legend: Sequence[tuple[int, str]] = field(default=())
    shapes: bool = False
    """The legend shows the classes' markers rather than lines."""


def finetune_plots(evaluation: Evaluation) -> list[Plot]:
    """Losses and validation AUROC over epochs, with the epoch that was kept."""
    losses, scores, marks = [], [], []
    for chosen in evaluation.metrics["per_seed"]:
        rows = [r for r in evaluation.history if r["seed"] == chosen["seed"]]
        for place, key in enumerate(("train_loss", "val_loss")):
            known = {r["epoch"]: r[key] for r in rows if r[key] is not None}
            if known:
                losses.append(Line(list(known), list(known.values()), place))
        known = {r["epoch"]: r["val_auroc"] for r in rows}
        if known and all(score is not None for score in known.values()):
            scores.append(Line(list(known), list(known.values()), 2))
            if chosen["epoch"] in known:
                marks.append(PointMarker(chosen["epoch"], known[chosen["epoch"]], "kept", 2))
    plots = [
        Plot(
            "Fine-tuning: loss",
            Markup(figures.curves(losses, "epoch", "cross entropy", whole_x=True)),
            "Training is on augmented images with smoothed labels, so its loss cannot reach 0.",
            [(0, "train"), (1, "validation")]
            # More lines than seeds: there are validation losses too.
            if len(losses) > len(evaluation.metrics["per_seed"])
            else [(0, "train")],
        )
    ]
    if scores:
        plots.append(
            Plot(
                "Fine-tuning: validation AUROC",
                Markup(figures.curves(scores, "epoch", "macro AUROC", marks, whole_x=True)),
                "The epoch is chosen here; the test part is looked at once, with that epoch.",
            )
        )
    return plots


def compared_curves(rows: Mapping[str, Evaluation]) -> list[Plot]:
    """Fine-tuning curves, one colour a row."""
    legend = list(enumerate(rows))
    training = {
        "train_loss": ("Fine-tuning: training loss", "cross entropy"),
        "val_auroc": ("Fine-tuning: validation AUROC", "macro AUROC"),
    }
    plots = []
    for key, (title, label) in training.items():
        lines = []
        for place, row in enumerate(rows.values()):
            for chosen in row.metrics["per_seed"]:
                points = [
                    (r["epoch"], r[key])
                    for r in row.history
                    if r["seed"] == chosen["seed"] and r[key] is not None
                ]
                if points:
                    lines.append(figures.classed([p[0] for p in points], [p[1] for p in points], place))
        if lines:
            plots.append(
                Plot(
                    title,
                    Markup(figures.curves(lines, "epoch", label, whole_x=True)),
                    "One line for each seed.",
                    legend,
                )
            )
    return plots


def whisker_plots(metrics: Mapping[str, Mapping[str, Any]]) -> list[Plot]:
    """The scores that matter most, each row with its interval."""
    plots = []
    classes = len(next(iter(metrics.values()))["classes"])
    chance = {"auroc": 0.5, "balanced_accuracy": 1 / classes}
    for name in COMPARED:
        values = [m["macro"][name] for m in metrics.values()]
        spans = [m["ci95"]["macro"][name] for m in metrics.values()]
        svg = figures.whiskers(list(metrics), values, spans, wording.LABELS[name], chance.get(name))
        note = "Dotted: guessing." if name in chance else ""
        plots.append(
            Plot(
                f"{wording.LABELS[name][0].upper()}{wording.LABELS[name][1:]} with 95 % interval",
                Markup(svg),
                note,
            )
        )
    return plots


def pretraining_plots(metrics: Mapping[str, Mapping[str, Any]]) -> list[Plot]:
    """The pretraining loss of every run behind the rows, with the evaluated checkpoints marked."""
    plots = []
    runs: dict[str, list[tuple[str, int]]] = {}
    for name, tree in metrics.items():
        run = run_url(tree["checkpoint"]["url"])
        if run and tree["checkpoint"]["step"] is not None:
            runs.setdefault(run, []).append((name, tree["checkpoint"]["step"]))
    places = {name: i for i, name in enumerate(metrics)}
    for run, checkpoints in runs.items():
        steps, losses = read_losses(run)
        if not steps:
            continue
        marks = [
            PointMarker(step, float(np.interp(step, steps, losses)), name or f"step {step:,}", places[name])
            for name, step in checkpoints
        ]
        colour = figures.COLOURS - 2
        svg = figures.curves([Line(steps, losses, colour)], "step", "reconstruction loss", marks)
        plots.append(
            Plot(
                "Pretraining: loss on removed patches",
                Markup(svg),
                f"Run {run}; dots: the checkpoints evaluated here.",
            )
        )
    return plots


def read_losses(run: str) -> tuple[list[int], list[float]]:
    """Steps and losses in a run's metrics.jsonl, the last line of a step counting; empty where unreadable."""
    try:
        rows = each_step_once(read_log(run, run_folder.METRICS, LossStep).rows)
    # The page is drawn without the run's log too: the run may be deleted or out of reach.
    except StorageError:
        return [], []
    rows = [row for row in rows if row["loss"] is not None]
    return [row["step"] for row in rows], [row["loss"] for row in rows]
