"""Shows a comparison with a few patients a class: sentences, tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from markupsafe import Markup

from retfound_dist.evaluate.few_shots.shot_scores import FINETUNED, ShotPlan
from retfound_dist.evaluate.report import figures
from retfound_dist.evaluate.report.paired_differences import DECISIVE_SCORES
from retfound_dist.evaluate.report.training_plots import Plot
from retfound_dist.evaluate.scores import wording
from retfound_dist.evaluate.scores.probe_wording import PROBES as PROBE_NAMES

Entry = Mapping[str, Any]
"""One number of patients a class: an entry of `shot_scores.shots_tree`."""
_VAL = "Val stays complete, so the choice of the best epoch uses more labels than these."


def shots_sentences(entries: Sequence[Entry], plan: ShotPlan) -> list[str]:
    """Sentences about the differences from no pretraining, and about how the scores were made."""
    sentences = [
        f"With {_amount(entry)} ({_train_images(entry)}), fine-tuned: " + wording.describe_gain(name, lines)
        for entry in entries
        for name, lines in _finetuned_lines(entry).items()
    ]
    sentences += [f"{_capitalize(note)}." for note in plan.notes]
    if entries:
        sentences.append(f"With few {plan.unit}s a class, {_describe_means(entries)} {_VAL}")
    return sentences


def shots_tables(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """A table for each decisive score: a line for each method and row, a column for each number."""
    return [_table(entries, metric) for metric in DECISIVE_SCORES] if entries else []


def shots_plots(entries: Sequence[Entry]) -> list[Plot]:
    """Scores over patients a class, with bands: a plot for each score and method, a line for each row."""
    if len(entries) < 2:
        return []
    names = list(entries[0]["rows"])
    plots = []
    for metric in DECISIVE_SCORES:
        for method in _methods(entries):
            lines = [
                line for i, name in enumerate(names) if (line := _line(entries, name, method, metric, i))
            ]
            if lines:
                label = wording.LABELS[metric]
                svg = figures.line_chart(lines, f"{entries[0]['unit']}s a class", label, log_x=True)
                note = _note(entries) if method == FINETUNED else _capitalize(_describe_means(entries))
                title = f"Few {entries[0]['unit']}s a class, {_method_name(method)}: {label}"
                plots.append(Plot(title, Markup(svg), note, list(enumerate(names))))
    return plots


def _methods(entries: Sequence[Entry]) -> list[str]:
    rows = [row for entry in entries for row in entry["rows"].values()]
    return list(dict.fromkeys(method for row in rows for method in row))


def _method_name(method: str) -> str:
    return "fine-tuned" if method == FINETUNED else PROBE_NAMES.get(method, method)


def _amount(entry: Entry) -> str:
    """`4 patients a class`."""
    return f"{entry['shots']} {entry['unit']}{'s' if entry['shots'] > 1 else ''} a class"


def _train_images(entry: Entry) -> str:
    """`5 draws of 18 to 25 images`."""
    fewest, most = min(entry["train"]), max(entry["train"])
    images = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return f"{_draws(entry)} of {images} images"


def _draws(entry: Entry) -> str:
    return f"{entry['draws']} draw{'s' if entry['draws'] > 1 else ''}"


def _describe_means(entries: Sequence[Entry]) -> str:
    draws, unit = entries[0]["draws"], entries[0]["unit"]
    if draws == 1:
        return (
            f"scores are of one random draw of {unit}s, so intervals do not include the variation between "
            "draws."
        )
    return (
        f"scores are means over {draws} random draws of {unit}s. 95 % intervals are over the draws "
        "and the test part; with so few draws they are a little too narrow."
    )


def _note(entries: Sequence[Entry]) -> str:
    return f"{_capitalize(_describe_means(entries))} {_VAL}"


def _capitalize(text: str) -> str:
    return text[0].upper() + text[1:]


def _finetuned_lines(entry: Entry) -> dict[str, list[Mapping[str, Any]]]:
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for line in entry["against_none"]:
        if line["method"] == FINETUNED:
            lines.setdefault(line["row"], []).append(line)
    return lines


def _table(entries: Sequence[Entry], metric: str) -> dict[str, Any]:
    none = next((line["none"] for line in entries[0]["against_none"]), None)
    marks = (
        f" \u2191 \u2193: better or worse than \u201c{none}\u201d by more than chance (paired bootstrap)."
        if none
        else ""
    )
    return {
        "title": f"Few {entries[0]['unit']}s a class: {wording.LABELS[metric]}",
        "note": _note(entries) + marks,
        "columns": [_amount(entry) for entry in entries],
        "lines": [
            {
                "name": f"{name}, {_method_name(method)}",
                "cells": [_cell(entry, name, method, metric) for entry in entries],
            }
            for method in _methods(entries)
            for name in entries[0]["rows"]
        ],
    }


def _cell(entry: Entry, name: str, method: str, metric: str) -> dict[str, Any]:
    """The mean score as text, with its interval and a mark of its difference to `none`."""
    score = entry["rows"][name].get(method, {}).get(metric, {"mean": None, "ci95": None})
    if score["mean"] is None:
        return {"value": "-", "span": "", "reason": "", "best": False, "tied": False}
    low, high = (wording.format_number(end) for end in score["ci95"] or (0, 0))
    return {
        "value": wording.format_number(score["mean"]) + _mark(entry, name, method, metric),
        "span": f"{low} to {high}" if score["ci95"] else "",
        "reason": "",
        "best": False,
        "tied": False,
    }


def _mark(entry: Entry, name: str, method: str, metric: str) -> str:
    for line in entry["against_none"]:
        if (line["row"], line["method"], line["metric"]) == (name, method, metric) and line["real"]:
            return " \u2191" if line["difference"] > 0 else " \u2193"
    return ""


def _line(
    entries: Sequence[Entry], name: str, method: str, metric: str, colour_index: int
) -> figures.Line | None:
    """A row's mean score over patients a class, with its interval; None where it is never defined."""
    points = []
    for entry in entries:
        score = entry["rows"][name].get(method, {}).get(metric)
        if score and score["mean"] is not None:
            points.append((entry["shots"], score["mean"], *(score["ci95"] or [score["mean"]] * 2)))
    if not points:
        return None
    x, y, low, high = np.array(points).T
    return replace(figures.class_line(x, y, colour_index), band=(low, high))
