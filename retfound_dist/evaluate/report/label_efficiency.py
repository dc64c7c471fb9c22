"""Label efficiency: all rows of a comparison at several shares of the train part's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from retfound_dist.evaluate.probe import linear_probe
from retfound_dist.evaluate.report import figures
from retfound_dist.evaluate.report.paired_differences import DECIDED_ON, comparison
from retfound_dist.evaluate.report.training_plots import Plot
from retfound_dist.evaluate.results.evaluation_files import Evaluation
from retfound_dist.evaluate.scores import wording

ByShare = Mapping[float, Mapping[str, Evaluation]]
"""Share of labels -> row -> evaluation; all on the same test images."""


def percent(share: float) -> str:
    """`10 %`."""
    return f"{100 * share:g} %"


def tree(found: ByShare, resamples: int) -> list[dict[str, Any]]:
    """`label_efficiency` of compare.json: for each share, rising, what `paired.comparison` says."""
    return [
        {
            "share": share,
            "train": next(iter(found[share].values())).metrics["split"]["train"],
            **{
                key: value
                for key, value in comparison(found[share], resamples).items()
                # The other keys (`classes`, `seeds`, ...) stand in compare.json once, for the whole
                # comparison.
                if key in ("rows", "best", "differences", "against_none")
            },
        }
        for share in sorted(found)
    ]


def sentences(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which differences to no pretraining are real at the smaller shares."""
    said = []
    for entry in entries:
        for name in dict.fromkeys(line["row"] for line in entry["against_none"]):
            lines = [line for line in entry["against_none"] if line["row"] == name]
            said.append(
                f"With {percent(entry['share'])} of the labels ({entry['train']} images): "
                + wording.against_none(name, lines)
            )
    return said


def efficiency_plots(found: ByShare) -> list[Plot]:
    """Scores against the share of labels with bands, one colour a row; fine-tuned, and the linear probe."""
    if len(found) < 2:
        return []
    names = list(dict.fromkeys(name for rows in found.values() for name in rows))
    legend = list(enumerate(names))
    plots = []
    for metric in DECIDED_ON:
        for what, scores in (("fine-tuned", _finetuned), ("linear probe", _linear)):
            lines = [line for i, name in enumerate(names) if (line := _line(found, name, metric, scores, i))]
            if lines:
                label = wording.LABELS[metric]
                svg = figures.curves(lines, "share of the labels, %", label, log_x=True)
                note = "Band: 95 % interval. A smaller share's images are among a larger one's."
                plots.append(Plot(f"Label efficiency, {what}: {label}", Markup(svg), note, legend))
    return plots


def _finetuned(row: Evaluation) -> Mapping[str, Any] | None:
    return row.metrics


def _linear(row: Evaluation) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = row.metrics.get("probe", {}).get(linear_probe.LINEAR)
    return found


def _line(found: ByShare, name: str, metric: str, scores: Any, place: int) -> figures.Line | None:
    points = []
    for share in sorted(found):
        held = scores(found[share][name]) if name in found[share] else None
        if held and held["macro"][metric] is not None:
            value = held["macro"][metric]
            span = held["ci95"]["macro"][metric] or (value, value)
            points.append((100 * share, value, *span))
    if not points:
        return None
    x, y, low, high = np.array(points).T
    return figures.Line(x, y, place, dashed=place % figures.COLOURS >= figures.SOLID, band=(low, high))
