"""Label efficiency: all rows of a comparison at several shares of the train part's labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup

from retfound_dist.evaluate.probe import probing
from retfound_dist.evaluate.report import figures
from retfound_dist.evaluate.report.paired_differences import DECISIVE_SCORES, comparison
from retfound_dist.evaluate.report.training_plots import Plot
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.scores import comparison_wording, probe_wording, wording
from retfound_dist.evaluate.scores.unit_wording import train_images

ByShare = Mapping[float, Mapping[str, Evaluation]]
"""Share of labels -> row -> evaluation, all with the same test images."""


def percent(share: float) -> str:
    """`10 %`."""
    return f"{100 * share:g} %"


def efficiency_entries(by_share: ByShare, resamples: int) -> list[dict[str, Any]]:
    """`label_efficiency` of compare.json: the comparison at each share, in rising order."""
    return [
        {
            "share": share,
            "train": train_images(next(iter(by_share[share].values())).metrics),
            **{
                key: value
                for key, value in comparison(by_share[share], resamples).items()
                # The other keys (`classes`, `seeds`, ...) are in compare.json once, for the whole comparison.
                if key in ("rows", "best", "differences", "against_none")
            },
        }
        for share in sorted(by_share)
    ]


def efficiency_sentences(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences about the differences from no pretraining at each share."""
    sentences = []
    for entry in entries:
        for name in dict.fromkeys(line["row"] for line in entry["against_none"]):
            lines = [line for line in entry["against_none"] if line["row"] == name]
            sentences.append(
                f"With {percent(entry['share'])} of the labels ({entry['train']} images): "
                + comparison_wording.describe_gain(name, lines)
            )
    return sentences


def efficiency_plots(by_share: ByShare) -> list[Plot]:
    """Scores over the share of labels with bands, one colour for each row: fine-tuned, and by two probes."""
    if len(by_share) < 2:
        return []
    names = list(dict.fromkeys(name for rows in by_share.values() for name in rows))
    legend = list(enumerate(names))
    plots = []
    for metric in DECISIVE_SCORES:
        for method, scores in _METHODS.items():
            lines = [
                line
                for i, name in enumerate(names)
                if (line := _score_line(by_share, name, metric, scores, i))
            ]
            if lines:
                label = wording.LABELS[metric]
                svg = figures.line_chart(lines, "share of the labels, %", label, log_x=True)
                note = "Band: 95 % interval. The images of a smaller share are part of every larger share."
                plots.append(Plot(f"Label efficiency, {method}: {label}", Markup(svg), note, legend))
    return plots


def _finetuned(row: Evaluation) -> Mapping[str, Any] | None:
    return row.metrics


def _probed(kind: str, row: Evaluation) -> Mapping[str, Any] | None:
    scores: Mapping[str, Any] | None = row.metrics.get("probe", {}).get(kind)
    return scores


_METHODS: Mapping[str, Callable[[Evaluation], Mapping[str, Any] | None]] = {
    "fine-tuned": _finetuned,
    **{probe_wording.PROBES[kind]: partial(_probed, kind) for kind in (probing.LINEAR, probing.ATTENTIVE)},
}


def _score_line(
    by_share: ByShare, name: str, metric: str, scores: Any, colour_index: int
) -> figures.Line | None:
    """A row's score over the share of labels, with its interval; None if no share has the score."""
    points = []
    for share in sorted(by_share):
        row_scores = scores(by_share[share][name]) if name in by_share[share] else None
        if row_scores and row_scores["macro"][metric] is not None:
            value = row_scores["macro"][metric]
            span = row_scores["ci95"]["macro"][metric] or (value, value)
            points.append((100 * share, value, *span))
    if not points:
        return None
    x, y, low, high = np.array(points).T
    return replace(figures.class_line(x, y, colour_index), band=(low, high))
