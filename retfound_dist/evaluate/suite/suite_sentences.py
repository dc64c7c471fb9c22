"""A suite in plain sentences: which row is ahead, on how many sets, and what ranks over sets can show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from retfound_dist.evaluate.scores import wording
from retfound_dist.evaluate.scores.multiple_comparisons import ALPHA
from retfound_dist.runtime.humanize import plural

RankSummary = Mapping[str, Any]
"""`rank_statistics.rank_summary`."""
_SMALLEST_TESTED = 6
"""With fewer sets no two-sided p of the signed-rank test is below 0.05."""


def suite_sentences(summaries: Sequence[RankSummary]) -> list[str]:
    """The sentences for all scores, each limit of the tests once."""
    sentences: list[str] = []
    for summary in summaries:
        sentences += rank_sentences(summary)
    # Limits depend only on the number of sets, which is often the same for all scores.
    sentences += [limit for summary in summaries for limit in limit_sentences(summary)]
    return list(dict.fromkeys(sentences))


def rank_sentences(summary: RankSummary) -> list[str]:
    """The row with the best mean rank, and its wins and ties against each other row."""
    label = wording.LABELS[summary["metric"]]
    if not summary["sets"]:
        return [f"{_capital(label)} is undefined for some row on every set, so rows have no ranks."]
    if len(summary["rows"]) < 2:
        return []
    ranks = summary["mean_rank"]
    lowest = min(ranks.values())
    leaders = [row for row, rank in ranks.items() if rank == lowest]
    sets = plural(len(summary["sets"]), "set")
    if len(leaders) > 1:
        return [f"{_capital(label)} on {sets}: {_names(leaders)} share the best mean rank, {lowest:.2f}."]
    best = leaders[0]
    text = f"{_capital(label)} on {sets}: “{best}” has the best mean rank, {lowest:.2f} (1 is the best)."
    pairs = [pair for pair in summary["pairs"] if best in _ends(pair)]
    same = [_other(pair, best) for pair in pairs if not pair["wins"] and not pair["losses"]]
    records = [_record(pair, best) for pair in pairs if pair["wins"] or pair["losses"]]
    if same:
        records.append(f"On no set is it clearly different from {_names(same, 'or')}.")
    return [" ".join([text, *records])]


def limit_sentences(summary: RankSummary) -> Iterator[str]:
    """What the tests over sets show, or why they cannot show anything."""
    sets, pairs = len(summary["sets"]), len(summary["pairs"])
    if not sets or not pairs:
        return
    if sets == 1:
        yield "With one set, ranks say no more than the comparison on this set."
        return
    smallest = summary["smallest_p"]
    if sets < _SMALLEST_TESTED:
        yield (
            f"With {sets} sets, the Wilcoxon signed-rank test cannot give a two-sided p below {smallest:g}. "
            "So ranks alone cannot decide which row is better: look at the clear differences on each set."
        )
    elif smallest * pairs >= ALPHA:
        yield (
            f"With {sets} sets and {pairs} pairs of rows, the Wilcoxon signed-rank test cannot give a p "
            f"below {wording.format_p(smallest * pairs)} after Holm's correction. So ranks alone cannot "
            "decide which row is better: compare fewer rows, or look at the clear differences on each set."
        )
    else:
        yield _test_sentence(summary)


def _test_sentence(summary: RankSummary) -> str:
    """The pairs of rows that differ over sets after Holm's correction."""
    label, sets = _capital(wording.LABELS[summary["metric"]]), len(summary["sets"])
    pairs = [pair for pair in summary["pairs"] if pair["p_holm"] is not None and pair["p_holm"] < ALPHA]
    count = len(summary["pairs"])
    corrected = f" after Holm's correction for {count} pairs" if count > 1 else ""
    if not pairs:
        return (
            f"{label}: the Wilcoxon signed-rank test over {sets} sets finds no difference larger than "
            f"chance{corrected}."
        )
    listed = "; ".join(
        f"“{pair['one']}” and “{pair['other']}” (p {wording.format_p(pair['p_holm'])})" for pair in pairs
    )
    return f"{label}: the Wilcoxon signed-rank test over {sets} sets finds a difference{corrected}: {listed}."


def joined_note(summary: RankSummary) -> str:
    """What the critical-difference picture means for this number of rows and sets."""
    difference, rows, sets = summary["critical_difference"], len(summary["rows"]), len(summary["sets"])
    text = (
        "Mean ranks over sets, 1 is the best. A bar joins rows whose mean ranks differ by less than the "
        f"critical difference, {difference:.2f} (Nemenyi test, 0.05)."
    )
    if difference > rows - 1:
        text += (
            f" With {sets} sets it is larger than the largest possible difference, {rows - 1}, so all rows "
            "are joined."
        )
    if (p := summary["friedman_p"]) is not None:
        text += f" Friedman's test that all rows have the same rank: p {wording.format_p(p)}."
    return text


def _record(pair: Mapping[str, Any], best: str) -> str:
    """The sets on which the best row is clearly better or worse than another."""
    wins, losses = (pair["wins"], pair["losses"]) if pair["one"] == best else (pair["losses"], pair["wins"])
    counts = {"clearly better": wins, "clearly worse": losses, "not clearly different": pair["ties"]}
    clauses = [f"{words} on {plural(count, 'set')}" for words, count in counts.items() if count]
    return f"Compared with “{_other(pair, best)}”, it is {_joined(clauses)}."


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


def _ends(pair: Mapping[str, Any]) -> tuple[str, str]:
    return pair["one"], pair["other"]


def _other(pair: Mapping[str, Any], row: str) -> str:
    return next(name for name in _ends(pair) if name != row)


def _names(names: Sequence[str], last: str = "and") -> str:
    return _joined([f"“{name}”" for name in names], last)


def _joined(words: Sequence[str], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
