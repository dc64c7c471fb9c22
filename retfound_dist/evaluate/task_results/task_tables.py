"""Scores of tasks as tables of pages, of the terminal and of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retfound_dist.evaluate.scores import wording
from retfound_dist.evaluate.scores.metrics import best_value
from retfound_dist.evaluate.tasks.task_facts import (
    MULTILABEL,
    REGRESSION,
    SCORE_LABELS,
    SCORES,
    TaskFacts,
)

Rows = Mapping[str, Mapping[str, Any]]
"""Row of the comparison -> content of its metrics.json."""
_NOTES = {
    "multilabel": "On the test part. Means over the labels, each over the images whose answer is known.",
    "regression": "On the test part. The errors are in the unit of the list. Concordance is the share of "
    "pairs of images that are in the right order; 0.5 is guessing.",
    "ordinal": "On the test part. The predicted grade is the median of the probabilities. Quadratic kappa "
    "counts an error by its squared distance in grades.",
}
_TIED_NOTE = " Bold: the best. ≈: no clear difference from the best (paired bootstrap)."
_COLUMN_WIDTH = 26
_THRESHOLD_NOTE = (
    " The threshold has the largest sum of sensitivity and specificity on val (0.5 where val has too few "
    "images); sensitivity and specificity are those of the test part."
)


def task_score_table(
    facts: TaskFacts, rows: Rows, ties: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    """One line for each row of the comparison, one column for each score."""
    scored = {name: (tree["scores"], tree["ci95"]) for name, tree in rows.items()}
    return _table(facts, "All scores", _NOTES[facts.kind] + (_TIED_NOTE if ties else ""), scored, ties or {})


def task_probe_tables(facts: TaskFacts, rows: Rows) -> list[dict[str, Any]]:
    """The linear probe of each row that has one."""
    probed = {
        name: (tree["probe"]["linear"]["scores"], tree["probe"]["linear"]["ci95"])
        for name, tree in rows.items()
        if tree.get("probe")
    }
    model = {MULTILABEL: "logistic regression of each label", REGRESSION: "ridge regression"}.get(
        facts.kind, "logistic regression of the grades"
    )
    note = f"A linear model on frozen features shows what the encoder knows before fine-tuning: {model}."
    return [_table(facts, "Linear probe", note, probed, {})] if probed else []


def target_table(metrics: Mapping[str, Any], facts: TaskFacts, row: str = "") -> dict[str, Any]:
    """The scores of each label or grade, or facts of the number, by itself."""
    columns = {
        MULTILABEL: ("images", "with_label", "auroc", "aupr", "log_loss", *_threshold_columns(metrics)),
        REGRESSION: ("images", "mean", "std", "least", "most", "bias", "mae_of_median"),
    }.get(facts.kind, ("images", "predicted", "correct_share", "mae_grades"))
    titles = {
        "with_label": "with the label",
        "std": "standard deviation",
        "least": "smallest",
        "most": "largest",
        "mae_of_median": "error of always answering the median",
        "correct_share": "share predicted right",
        **SCORE_LABELS,
    }
    title = {MULTILABEL: "Label by label", REGRESSION: "The number"}.get(facts.kind, "Grade by grade")
    notes = {
        MULTILABEL: "Only images whose answer is known count."
        + (_THRESHOLD_NOTE if _threshold_columns(metrics) else ""),
        REGRESSION: "True values of the test part. Bias: mean of predicted minus true.",
    }
    return {
        "title": f"{title}{row and f' of “{row}”'}",
        "note": notes.get(facts.kind, "The distance is counted in grades."),
        "first": {MULTILABEL: "label", REGRESSION: "target"}.get(facts.kind, "grade"),
        "columns": [titles.get(name, name) for name in columns],
        "lines": [
            {"name": name, "cells": [_plain_cell(values[column]) for column in columns]}
            for name, values in metrics["per_target"].items()
        ],
    }


def _threshold_columns(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of thresholds; none where an earlier version has chosen none."""
    return ("threshold", "sensitivity", "specificity") if metrics.get("thresholds") else ()


def terminal_lines(facts: TaskFacts, rows: Rows) -> list[str]:
    """The scores of each row, with intervals, in columns."""
    first, names = max(len("weights"), *map(len, rows)), SCORES[facts.kind]
    head = f"{'weights':<{first}}" + "".join(f"  {SCORE_LABELS[name]:>{_COLUMN_WIDTH}}" for name in names)
    return [
        head,
        *(
            f"{row:<{first}}"
            + "".join(
                f"  {wording.format_score(tree['scores'][name], tree['ci95'][name]):>{_COLUMN_WIDTH}}"
                for name in names
            )
            for row, tree in rows.items()
        ),
    ]


def _table(
    facts: TaskFacts,
    title: str,
    note: str,
    rows: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]],
    ties: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """A table of scores: a line for each row, a column for each score of the task's kind.

    `rows`: name of a row -> its scores and their intervals; `ties`: score -> the rows that are not clearly
    worse than the best one.
    """
    names = SCORES[facts.kind]
    best = {name: best_value([scores[name] for scores, _ in rows.values()], name) for name in names}
    return {
        "title": title,
        "note": note,
        "columns": [SCORE_LABELS[name] for name in names],
        "lines": [
            {
                "name": row,
                "cells": [
                    {
                        **_plain_cell(scores[name]),
                        "span": _span_text(spans[name]),
                        "best": len(rows) > 1 and scores[name] is not None and scores[name] == best[name],
                        "tied": row in ties.get(name, ()),
                    }
                    for name in names
                ],
            }
            for row, (scores, spans) in rows.items()
        ],
    }


def _plain_cell(value: float | int | None) -> dict[str, Any]:
    text = "-" if value is None else str(value) if isinstance(value, int) else wording.format_number(value)
    reason = "too few different answers" if value is None else ""
    return {"value": text, "span": "", "reason": reason, "best": False, "tied": False}


def _span_text(span: Sequence[float] | None) -> str:
    return f"{wording.format_number(span[0])} to {wording.format_number(span[1])}" if span else ""
