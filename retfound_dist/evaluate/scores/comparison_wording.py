"""Sentences on the differences between the rows of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retfound_dist.evaluate.scores.multiple_comparisons import ALPHA, smallest_bootstrap_p
from retfound_dist.evaluate.scores.wording import LABELS, format_p, format_score

Difference = Mapping[str, Any]
"""An entry of compare.json: `difference`, `ci95`, `real`, and after several comparisons `p_holm`."""
_LISTED_APART = 2
"""So many rows without a clear difference have a sentence each; more are listed in one."""


def describe_best(name: str, metric: str, best_score: str, lines: Sequence[Difference]) -> str:
    """The best row on one metric, and its differences from the other rows."""
    scored_lines = [line for line in lines if line["difference"] is not None]
    if scored_lines and len(scored_lines) == len(lines) and not any(_differs(line) for line in lines):
        return f"All rows have the same {LABELS[metric]}, {best_score}."
    sentences = [f"{_quote(name)} has the best {LABELS[metric]}, {best_score}."]
    clear, unclear = ([line for line in scored_lines if line["real"] == real] for real in (True, False))
    if clear:
        ahead = [
            f"{_quote(line['other'])} by {format_score(line['difference'], line['ci95'])}"
            + (f" ({clause})" if (clause := _correction(line)) else "")
            for line in clear
        ]
        sentences.append(f"It is clearly ahead of {_join(ahead)}.")
    if unclear:
        near = [
            f"{_quote(line['other'])} ({format_score(line['difference'], line['ci95'])})" for line in unclear
        ]
        sentences.append(f"No clear difference on these test images from {_join(near)}.")
    sentences += [
        f"{_quote(line['other'])} cannot be compared: its {LABELS[metric]} is undefined."
        for line in lines
        if line["difference"] is None
    ]
    return " ".join(sentences)


def describe_gains(gains: Mapping[str, Sequence[Difference]]) -> list[str]:
    """Sentences about all rows: whether each is better or worse than random weights."""
    unclear = [name for name, lines in gains.items() if not any(line["real"] for line in lines)]
    if len(unclear) <= _LISTED_APART:
        return [describe_gain(name, lines) for name, lines in gains.items()]
    listed = "; ".join(
        _quote(name) + (f" ({gaps})" if (gaps := _known_gaps(gains[name])) else "") for name in unclear
    )
    return [
        *(describe_gain(name, lines) for name, lines in gains.items() if name not in unclear),
        f"These rows are not shown to be better or worse than no pretraining: {listed}.",
    ]


def describe_gain(name: str, lines: Sequence[Difference]) -> str:
    """Whether a row is better or worse than random weights."""
    clear = [line for line in lines if line["real"]]
    better, worse = ([x for x in clear if (x["difference"] > 0) == up] for up in (True, False))
    if not clear:
        gaps = _known_gaps(lines)
        tail = f" (difference: {gaps})" if gaps else ""
        return f"{_quote(name)} is not shown to be better or worse than no pretraining{tail}."
    clauses = []
    if better:
        clauses.append("is better than no pretraining: " + " and ".join(_gap(line) for line in better))
    if worse:
        clauses.append("is worse than no pretraining: " + " and ".join(_gap(line) for line in worse))
    rest = [LABELS[line["metric"]] for line in lines if not line["real"]]
    tail = f"; no clear difference in {' and '.join(rest)}" if rest else ""
    return f"{_quote(name)} {'; it '.join(clauses)}{tail}."


def describe_too_few_resamples(resamples: int, comparisons: int) -> list[str]:
    """A sentence where so few resamples cannot show any difference after Holm's correction; else none."""
    smallest = smallest_bootstrap_p(resamples) * comparisons
    if comparisons < 2 or smallest < ALPHA:
        return []
    return [
        f"No difference can remain after correction for {comparisons} comparisons: with {resamples:,} "
        f"resamples the smallest corrected p is {format_p(smallest)}. Set a larger bootstrap."
    ]


def _correction(line: Difference) -> str:
    """Whether a clear difference remains after Holm's correction; empty where there is nothing to correct."""
    count, p_holm = line.get("comparisons", 1), line.get("p_holm")
    if count < 2 or p_holm is None:
        return ""
    if p_holm < ALPHA:
        return f"still larger than chance after correction for {count} comparisons"
    return f"but not after correction for {count} comparisons"


def _gap(line: Difference) -> str:
    sign = "+" if line["difference"] > 0 else ""
    text = f"{LABELS[line['metric']]} {sign}{format_score(line['difference'], line['ci95'])}"
    clause = _correction(line) if line["real"] else ""
    return f"{text} ({clause})" if clause else text


def _known_gaps(lines: Sequence[Difference]) -> str:
    return " and ".join(_gap(line) for line in lines if line["difference"] is not None)


def _differs(line: Difference) -> bool:
    return bool(line["difference"] or any(line["ci95"] or ()))


def _join(texts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _quote(name: str) -> str:
    return f"\u201c{name}\u201d"
