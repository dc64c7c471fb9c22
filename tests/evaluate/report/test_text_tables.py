"""A comparison's scores as text: columns for a terminal, Markdown for a paper."""

from __future__ import annotations

from retfound_dist.evaluate.report import text_tables
from tests.evaluate.made import predictions

NO_TIES: dict[str, dict[str, list[str]]] = {"legacy": {}, "macro": {}}


def test_columns_of_the_terminal_stand_below_their_names() -> None:
    metrics = {name: predictions(seed).metrics for seed, name in enumerate(("a", "a_longer_name"))}
    head, *rows = text_tables.terminal_table(metrics)
    assert head.split() == ["weights", "AUROC", "AUPR", "balanced", "accuracy"]
    assert {len(line) for line in (head, *rows)} == {len(head)}
    for (name, tree), line in zip(metrics.items(), rows, strict=True):
        assert line.split()[0] == name
        assert f"{tree['macro']['auroc']:.3f} [" in line


def test_a_row_s_name_cannot_break_the_markdown_table() -> None:
    tree = predictions(0).metrics
    text = text_tables.markdown_tables({"a|b": tree, "plain": tree}, NO_TIES)
    for part in text.split("## ")[1:]:
        lines = [line for line in part.splitlines() if line.startswith("|")]
        assert len(lines) == 4
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_the_best_is_bold_and_what_is_not_told_apart_from_it_is_marked() -> None:
    good, poor = predictions(0).metrics, predictions(0).metrics
    poor["macro"] = {**poor["macro"], "auroc": good["macro"]["auroc"] / 2}
    text = text_tables.markdown_tables(
        {"good": good, "poor": poor}, {**NO_TIES, "macro": {"auroc": ["poor"]}}
    )
    columns, good_row, poor_row = (
        [cell.strip() for cell in line.split("|")]
        for line in text.split("## macro")[1].splitlines()
        if line.startswith(("| weights", "| good", "| poor"))
    )
    place = columns.index("AUROC")
    assert good_row[place].startswith(f"**{good['macro']['auroc']:.3f}** [")
    assert poor_row[place].startswith(f"{poor['macro']['auroc']:.3f} \u2248 [")
