"""`report.html`: one self-contained page for one evaluation, or for several side by side.

The page is a template and a context; everything shown is computed here from what is committed, so that
an old evaluation draws the same page again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from retfound_dist.evaluate import wording
from retfound_dist.evaluate.dataset import LabelledSet
from retfound_dist.evaluate.metrics import LEGACY, MACRO
from retfound_dist.evaluate.pictures import picture_tables
from retfound_dist.evaluate.plots import (
    class_plots,
    compared_curves,
    finetune_plots,
    pretraining_plots,
    whisker_plots,
)
from retfound_dist.evaluate.results import Evaluation
from retfound_dist.evaluate.start import Start


def evaluation_page(evaluation: Evaluation, start: Start, data: LabelledSet) -> str:
    """The page of one evaluation."""
    metrics = evaluation.metrics
    return _render(
        title=f"Evaluation on {data.path}",
        subtitle=f"Starting weights: {wording.of_start(metrics['checkpoint'])}",
        summary=[
            *wording.summary(metrics),
            "Whether this checkpoint is better than none takes a comparison: retfound compare.",
        ],
        warnings=wording.warnings(metrics),
        tables=[
            _score_table("legacy", LEGACY, {"score": metrics}),
            _score_table("macro", MACRO, {"score": metrics}),
        ],
        plots=[*pretraining_plots({"": metrics}), *finetune_plots(evaluation), *class_plots(evaluation)],
        rows=[_details("", evaluation)],
        pictures=picture_tables({"": start}, {start.image_size: data}),
        facts=_facts(metrics),
    )


def comparison_page(
    rows: Mapping[str, Evaluation],
    starts: Mapping[str, Start],
    sets: Mapping[int, LabelledSet],
    sentences: Sequence[str],
) -> str:
    """The same page with more rows."""
    metrics = {name: row.metrics for name, row in rows.items()}
    first = next(iter(metrics.values()))
    test = f"{first['split']['test']} test images" + (
        f" of {first['patients']} patients" if first["patients"] else ""
    )
    return _render(
        title=f"Starting weights compared on {first['data']['path']}",
        subtitle=f"{len(rows)} starting weights, the same fine-tuning for each, {test}",
        summary=[*sentences, wording.intervals(first)],
        warnings=_shared_warnings(metrics),
        tables=[_score_table("macro", MACRO, metrics), _score_table("legacy", LEGACY, metrics)],
        plots=[*whisker_plots(metrics), *pretraining_plots(metrics), *compared_curves(rows)],
        rows=[_details(name, row) for name, row in rows.items()],
        pictures=picture_tables(starts, sets),
        facts=_facts(first),
    )


def _shared_warnings(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What holds for all rows once, and each row's undefined scores under its name."""
    common = [line for m in metrics.values() for line in wording.warnings(m) if line != wording.undefined(m)]
    own = [f"\u201c{n}\u201d: {wording.undefined(m)}" for n, m in metrics.items() if wording.undefined(m)]
    return [*dict.fromkeys(common), *own]


def _render(**context: Any) -> str:
    loader = PackageLoader("retfound_dist.evaluate", ".")
    template = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return template.get_template("report.html.j2").render(**context)


def _score_table(kind: str, names: Sequence[str], metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A definition's scores: one line for each row of the comparison, one column for each score."""
    best = {name: _best([m[kind][name] for m in metrics.values()], name) for name in names}
    lines = []
    for row, tree in metrics.items():
        cells = []
        for name in names:
            value, span = tree[kind][name], tree["ci95"][kind][name]
            cells.append(
                {
                    "value": "-" if value is None else wording.number(value),
                    "span": f"{wording.number(span[0])} to {wording.number(span[1])}"
                    if value is not None and span
                    else "",
                    "why": tree[kind]["undefined"].get(name, ""),
                    "best": len(metrics) > 1 and value is not None and value == best[name],
                }
            )
        lines.append({"name": row, "cells": cells})
    return {"kind": kind, "columns": [wording.LABELS[name] for name in names], "lines": lines}


def _best(values: Sequence[float | None], name: str) -> float | None:
    known = [v for v in values if v is not None]
    if not known:
        return None
    return min(known) if name in ("log_loss", "ece") else max(known)


def _details(name: str, evaluation: Evaluation) -> dict[str, Any]:
    """Confusion matrix and the scores of each class."""
    counts = np.array(evaluation.metrics["confusion"])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    columns = ("n", "sensitivity", "specificity", "precision", "f1", "auroc", "aupr")
    per_class = [
        {
            "name": label,
            "cells": [str(scores["n"])]
            + ["-" if scores[c] is None else wording.number(scores[c]) for c in columns[1:]],
        }
        for label, scores in evaluation.metrics["per_class"].items()
    ]
    return {
        "name": name,
        "classes": evaluation.classes,
        "counts": counts.tolist(),
        "shares": shares.round(3).tolist(),
        "columns": ["images", *(wording.LABELS[c] for c in columns[1:])],
        "per_class": per_class,
        "start": wording.of_start(evaluation.metrics["checkpoint"]),
        "epochs": ", ".join(f"seed {r['seed']}: epoch {r['epoch']}" for r in evaluation.metrics["per_seed"]),
    }


def _facts(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    split, recipe = metrics["split"], metrics["config"]["finetune"]
    parts = ", ".join(
        f"{name} {split[name]} images"
        + (f" of {split['patients'][name]} patients" if split["patients"][name] else "")
        for name in ("train", "val", "test")
    )
    how = {
        "given": "as the set brings it",
        "patient": "by us, by patient",
        "image": "by us, by image (no patient is known)",
    }
    return [
        ("Labelled set", metrics["data"]["path"]),
        ("Parts", f"{parts}; split {how[split['by']]}"),
        ("Fine-tuning", ", ".join(f"{key} {value or 'none'}" for key, value in recipe.items())),
        ("Seeds", ", ".join(map(str, metrics["seeds"]))),
        ("Versions", ", ".join(f"{key} {value}" for key, value in metrics["versions"].items())),
    ]
