"""The page, the Markdown tables and suite.json of several sets, drawn from their compare.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from retfound_dist.evaluate.report.backbone_table import backbone_tables
from retfound_dist.evaluate.report.evaluation_page import empty_context, render
from retfound_dist.evaluate.report.paired_differences import DECISIVE_SCORES
from retfound_dist.evaluate.report.text_tables import markdown_table
from retfound_dist.evaluate.report.training_plots import Plot
from retfound_dist.evaluate.scores import wording
from retfound_dist.evaluate.scores.unit_wording import describe_test_part, unit_noun
from retfound_dist.evaluate.suite.critical_difference import critical_difference_svg
from retfound_dist.evaluate.suite.rank_statistics import ComparedSets, rank_summary
from retfound_dist.evaluate.suite.suite_sentences import RankSummary, joined_note, suite_sentences
from retfound_dist.evaluate.suite.suite_tables import pair_table, set_table
from retfound_dist.runtime.humanize import plural


def suite_tree(sets: ComparedSets, left_out: Mapping[str, str], warning: str) -> dict[str, Any]:
    """suite.json without its settings. `left_out`: set -> why; `warning`: about rows, or empty."""
    summaries = [rank_summary(metric, sets) for metric in DECISIVE_SCORES]
    sentences = suite_sentences(summaries)
    if warning:
        sentences.append(f"{warning[0].upper()}{warning[1:]}.")
    return {
        "sets": {
            name: {
                key: tree[key]
                for key in ("rows", "best", "pairs", "ties", "split", "bootstrap", "classes", "seeds")
            }
            for name, tree in sets.items()
        },
        "left_out": dict(left_out),
        "ranks": summaries,
        "sentences": sentences,
    }


def suite_page(tree: Mapping[str, Any], paths: Mapping[str, str], links: Mapping[str, str]) -> str:
    """The page of `suite_tree`. `paths`: set -> path of its images; `links`: set -> its own page."""
    sets = tree["sets"]
    return render(
        "suite",
        title=f"Starting weights compared on {plural(len(sets), 'labelled set')}",
        subtitle=f"{plural(len(_first(sets)['rows']), 'row')}, the same fine-tuning for each; "
        + ", ".join(f"{name}: {describe_test_part(one)}" for name, one in sets.items()),
        alarms=[],
        summary=tree["sentences"],
        **{
            **empty_context(),
            "warnings": suite_warnings(tree),
            "lead": _pictures(tree["ranks"]),
            "tables": suite_tables(tree, links),
            "facts": _facts(sets, paths),
        },
    )


def suite_tables(tree: Mapping[str, Any], links: Mapping[str, str]) -> list[dict[str, Any]]:
    """Scores of each set and pairs of rows, for each score; then what is compared."""
    sets = tree["sets"]
    tables = [set_table(summary, sets, links) for summary in tree["ranks"]]
    tables += [pair_table(summary) for summary in tree["ranks"] if _has_ranks(summary)]
    name, first = next(iter(sets.items()))
    compared = backbone_tables(first["rows"])
    return tables + [{**table, "note": f"{table['note']} Times are those on {name}."} for table in compared]


def suite_markdown(tree: Mapping[str, Any]) -> str:
    """suite.md: the tables of the page, to paste into a paper."""
    tables = suite_tables(tree, {})
    return "\n".join(markdown_table(table["title"], table) for table in tables)


def suite_warnings(tree: Mapping[str, Any]) -> list[str]:
    """Sets that were left out, and sets without ranks."""
    lines = [f"the set {name} is left out: {reason}" for name, reason in tree["left_out"].items()]
    for summary in tree["ranks"]:
        if summary["undefined"]:
            label = wording.LABELS[summary["metric"]]
            names = ", ".join(summary["undefined"])
            lines.append(f"{label} is undefined for some row on {names}, so its ranks are without this set")
    return lines


def _has_ranks(summary: RankSummary) -> bool:
    return len(summary["sets"]) > 1 and len(summary["rows"]) > 1


def _pictures(summaries: Sequence[RankSummary]) -> list[Plot]:
    return [
        Plot(
            f"Mean ranks by {wording.LABELS[summary['metric']]}",
            Markup(critical_difference_svg(summary["mean_rank"], summary["critical_difference"])),
            joined_note(summary),
        )
        for summary in summaries
        if _has_ranks(summary)
    ]


def _facts(sets: Mapping[str, Any], paths: Mapping[str, str]) -> list[tuple[str, str]]:
    """The images of each set, and how they were split."""
    facts = []
    for name, one in sets.items():
        split = one["split"]
        parts = ", ".join(f"{part} {split[part]:,}" for part in ("train", "val", "test"))
        split_by = wording.describe_split(split["by"], split.get("known_by", {}))
        facts.append(
            (
                f"Set {name}",
                f"{paths[name]}; {len(one['classes'])} classes; {parts} {unit_noun(one)}; split {split_by}",
            )
        )
    seeds = ", ".join(map(str, _first(sets)["seeds"]))
    return [*facts, ("Seeds", f"{seeds}; the page of each set has all settings")]


def _first(sets: Mapping[str, Any]) -> Any:
    return next(iter(sets.values()))
