"""Shows a comparison with a few patients a class: sentences, tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from markupsafe import Markup

from retfound_dist.evaluate.few_shots.shot_scores import FINETUNED, ShotPlan, list_numbers
from retfound_dist.evaluate.report import figures
from retfound_dist.evaluate.report.paired_differences import DECISIVE_SCORES
from retfound_dist.evaluate.report.training_plots import Plot
from retfound_dist.evaluate.scores import comparison_wording, wording
from retfound_dist.evaluate.scores.probe_wording import PROBES as PROBE_NAMES

Entry = Mapping[str, Any]
"""One number of patients a class: an entry of `shot_scores.shots_entries`."""
_MARKS = {1: " \u2191", 0: "", -1: " \u2193"}
_VAL = "Val stays complete, so the choice of the best epoch uses more labels than these."


def shots_sentences(entries: Sequence[Entry], plan: ShotPlan) -> list[str]:
    """Sentences about the differences from no pretraining, and about how the scores were made."""
    sentences = []
    for name in dict.fromkeys(line["row"] for entry in entries for line in entry["against_none"]):
        sentences += _finetuned_sentences(entries, name)
        sentences += [
            _probe_sentence(entries, name, probe) for probe in _methods(entries) if probe != FINETUNED
        ]
    sentences += [f"{_capitalize(note)}." for note in plan.notes]
    if entries:
        sentences.append(f"With few {plan.unit}s a class, {_describe_means(entries)} {_VAL}")
    return sentences


def _finetuned_sentences(entries: Sequence[Entry], name: str) -> list[str]:
    """A sentence for each number with a clear difference, and one for all other numbers."""
    sentences, unclear = [], []
    for entry in entries:
        lines = [line for line in entry["against_none"] if (line["row"], line["method"]) == (name, FINETUNED)]
        if any(line["real"] for line in lines):
            sentences.append(
                f"With {_amount(entry)} ({_train_images(entry)}), fine-tuned: "
                + comparison_wording.describe_gain(name, lines)
            )
        else:
            unclear.append(entry["shots"])
    if unclear:
        sentences.append(
            f"With {_count_units(list_numbers(unclear), entries[0]['unit'], unclear)} a class "
            f"({_draws(entries[0])} each), fine-tuned: \u201c{name}\u201d is not shown to be better or worse "
            "than no pretraining."
        )
    return sentences


def _probe_sentence(entries: Sequence[Entry], name: str, probe: str) -> str:
    """The numbers with which a probe of a row is better, or worse, than the probe of random weights."""
    clauses = []
    for word, sign in (("better", 1), ("worse", -1)):
        scores = []
        for metric in DECISIVE_SCORES:
            clear = [entry["shots"] for entry in entries if _verdict(entry, name, probe, metric) == sign]
            if clear:
                counted = _count_units(list_numbers(clear), entries[0]["unit"], clear)
                scores.append(f"{wording.LABELS[metric]} (with {counted} a class)")
        if scores:
            clauses.append(f"{word} than no pretraining in {' and '.join(scores)}")
    verdict = " and ".join(clauses) or "not shown to be better or worse than no pretraining"
    return f"With few {entries[0]['unit']}s a class, {_method_name(probe)}: \u201c{name}\u201d is {verdict}."


def _verdict(entry: Entry, name: str, method: str, metric: str) -> int:
    """1 or -1 where a row is better or worse than random weights by more than chance, else 0.

    `entry`: one number of training units; `name`: the row; `method`: a probe or fine-tuning.
    """
    for line in entry["against_none"]:
        if (line["row"], line["method"], line["metric"]) == (name, method, metric) and line["real"]:
            return 1 if line["difference"] > 0 else -1
    return 0


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
                note = _describe_bands(entries) + (f" {_VAL}" if method == FINETUNED else "")
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
    return f"{_count_units(str(entry['shots']), entry['unit'], [entry['shots']])} a class"


def _count_units(text: str, unit: str, numbers: Sequence[int]) -> str:
    """`1 patient`, `1 and 2 patients`. `text`: the numbers as text."""
    return f"{text} {unit}{'' if list(numbers) == [1] else 's'}"


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


def _describe_bands(entries: Sequence[Entry]) -> str:
    if entries[0]["draws"] == 1:
        return "One random draw. Band: 95 % interval over the test part."
    return f"Mean of {_draws(entries[0])}. Band: 95 % interval over the draws and the test part."


def _note(entries: Sequence[Entry]) -> str:
    return f"{_capitalize(_describe_means(entries))} {_VAL}"


def _capitalize(text: str) -> str:
    return text[0].upper() + text[1:]


def _table(entries: Sequence[Entry], metric: str) -> dict[str, Any]:
    """The table of one metric: a line for each row and method, a column for each number of training units."""
    none = next((line["none"] for line in entries[0]["against_none"]), None)
    marks = (
        f" \u2191 \u2193: better or worse than \u201c{none}\u201d by more than chance "
        "(paired bootstrap, without a correction for many comparisons)."
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
        "value": wording.format_number(score["mean"]) + _MARKS[_verdict(entry, name, method, metric)],
        "span": f"{low} to {high}" if score["ci95"] else "",
        "reason": "",
        "best": False,
        "tied": False,
    }


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
