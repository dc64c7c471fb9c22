"""The tables of a suite: scores of each row on each set with mean ranks, and pairs of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retfound_dist.evaluate.scores import wording
from retfound_dist.evaluate.scores.metrics import best_value
from retfound_dist.evaluate.suite.rank_statistics import ComparedSets
from retfound_dist.evaluate.suite.suite_sentences import RankSummary

MEAN_RANK = "mean rank"
_SCORES_NOTE = (
    "Bold: the best row of a set. \u2248: no clear difference from the best (paired bootstrap). The name of "
    "a set leads to its own page."
)
_PAIRS_NOTE = (
    "Number of sets where the first row of the pair is better or worse, and where the paired bootstrap shows "
    "no clear difference. p: Wilcoxon signed-rank test over sets; Holm's correction counts all pairs."
)


def set_table(summary: RankSummary, sets: ComparedSets, links: Mapping[str, str]) -> dict[str, Any]:
    """One line for each set and one column for each row, then the mean ranks. `links`: set -> its page."""
    metric, rows = summary["metric"], summary["rows"]
    lines = [
        {"name": name, "link": links.get(name, ""), "cells": _score_cells(metric, tree)}
        for name, tree in sets.items()
    ]
    if len(summary["sets"]) > 1 and len(rows) > 1:
        lines.append({"name": MEAN_RANK, "link": "", "cells": _rank_cells(summary)})
    label = wording.LABELS[metric]
    title = f"{label[0].upper()}{label[1:]} on each set"
    return {"title": title, "note": _SCORES_NOTE, "first": "set", "columns": list(rows), "lines": lines}


def pair_table(summary: RankSummary) -> dict[str, Any]:
    """One line for each pair of rows: wins, ties, losses and the test over sets."""
    lines = [
        {
            "name": f"{pair['one']} and {pair['other']}",
            "cells": [
                *(_plain(str(pair[key])) for key in ("wins", "ties", "losses")),
                *(
                    _plain("-" if (p := pair[key]) is None else wording.format_p(p))
                    for key in ("p", "p_holm")
                ),
            ],
        }
        for pair in summary["pairs"]
    ]
    columns = ["better", "no clear difference", "worse", "p", "p after Holm"]
    title = f"Pairs of rows by {wording.LABELS[summary['metric']]}"
    return {"title": title, "note": _PAIRS_NOTE, "first": "pair", "columns": columns, "lines": lines}


def terminal_lines(table: Mapping[str, Any]) -> list[str]:
    """A table of the page in columns for a terminal, without intervals."""
    lines = [[line["name"], *(cell["value"] for cell in line["cells"])] for line in table["lines"]]
    rows = [[table["title"], *table["columns"]], *lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def _score_cells(metric: str, tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The score of each row on one set, with its interval."""
    values = {row: scores["macro"][metric] for row, scores in tree["rows"].items()}
    best = best_value(list(values.values()), metric)
    cells = []
    for row, value in values.items():
        scores = tree["rows"][row]
        cells.append(
            {
                "value": "-" if value is None else wording.format_number(value),
                "span": _span_text(scores["ci95"]["macro"].get(metric)) if value is not None else "",
                "reason": scores["macro"].get("undefined", {}).get(metric, ""),
                "best": len(values) > 1 and value is not None and value == best,
                # An equal score is as good as the best: it is bold, and needs no second mark.
                "tied": row in tree["ties"]["macro"][metric] and value != best,
            }
        )
    return cells


def _span_text(span: Sequence[float] | None) -> str:
    return f"{wording.format_number(span[0])} to {wording.format_number(span[1])}" if span else ""


def _rank_cells(summary: RankSummary) -> list[dict[str, Any]]:
    lowest = min(summary["mean_rank"].values())
    return [{**_plain(f"{rank:.2f}"), "best": rank == lowest} for rank in summary["mean_rank"].values()]


def _plain(text: str) -> dict[str, Any]:
    return {"value": text, "span": "", "reason": "", "best": False, "tied": False}
