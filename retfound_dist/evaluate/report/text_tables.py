"""A comparison's scores as text: a few columns for a terminal, all of them as Markdown for a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retfound_dist.evaluate.report.backbone_table import backbone_tables
from retfound_dist.evaluate.report.score_tables import SCORE_NAMES, MetricsByRow, Ties, score_table
from retfound_dist.evaluate.scores import wording
from retfound_dist.files.untrusted_text import markdown as escaped

TERMINAL_SCORES = ("auroc", "aupr", "balanced_accuracy")
# `0.900 [0.850, 0.950]` takes 20 letters.
_COLUMN_WIDTH = 21
_INTERVAL_NOTE = " In brackets: 95 % intervals."


def terminal_table(metrics: MetricsByRow) -> list[str]:
    """The most important scores of each row, with intervals."""
    first = max(len("weights"), *map(len, metrics))
    head = f"{'weights':<{first}}{score_headings(TERMINAL_SCORES)}"
    return [
        head,
        *(f"{name:<{first}}{score_columns(tree, TERMINAL_SCORES)}" for name, tree in metrics.items()),
    ]


def score_headings(names: Sequence[str]) -> str:
    """The names of scores, above the columns of `score_columns`."""
    return "".join(f"  {wording.LABELS[name]:>{_COLUMN_WIDTH}}" for name in names)


def score_columns(tree: Mapping[str, Any], names: Sequence[str]) -> str:
    """Macro scores with their intervals, in columns."""
    macro, spans = tree["macro"], tree["ci95"]["macro"]
    cells = (wording.format_score(macro[name], spans[name]) for name in names)
    return "".join(f"  {cell:>{_COLUMN_WIDTH}}" for cell in cells)


def markdown_tables(metrics: MetricsByRow, ties: Ties, more_tables: Sequence[Mapping[str, Any]] = ()) -> str:
    """Every score of both definitions (`SCORE_NAMES`), then `more_tables`, then what is compared."""
    tables = [markdown_table(kind, score_table(kind, metrics, ties), _INTERVAL_NOTE) for kind in SCORE_NAMES]
    compared = [markdown_table(table["title"].lower(), table) for table in backbone_tables(metrics)]
    others = [markdown_table(table["title"], table, _INTERVAL_NOTE) for table in more_tables]
    return "\n".join([*tables, *others, *compared])


def markdown_table(title: str, table: Mapping[str, Any], added_note: str = "") -> str:
    """A table of the report as Markdown, below a heading and its note.

    `title`: the heading, instead of the table's own. `table`: as from `score_tables.score_table`; `first`
    heads the column of the lines' names. `added_note`: a sentence behind the table's note.
    """
    header = [table.get("first", "weights"), *table["columns"]]
    rows = [header, ["---"] * len(header)]
    for line in table["lines"]:
        # The user chose the name: a `|` in it would end the cell.
        rows.append([escaped(line["name"]), *map(_markdown_cell, line["cells"])])
    table_text = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"## {title}\n\n{table['note']}{added_note}\n\n{table_text}"


def _markdown_cell(cell: Mapping[str, Any]) -> str:
    """`**0.900** [0.850 to 0.950]`: bold is the best. Behind others, \u2248: no clear difference from it."""
    value = f"**{cell['value']}**" if cell["best"] else cell["value"]
    return value + (" \u2248" if cell["tied"] else "") + (f" [{cell['span']}]" if cell["span"] else "")
