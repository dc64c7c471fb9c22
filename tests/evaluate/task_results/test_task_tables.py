"""Tables of tasks: the best row is bold, whatever the direction of the score."""

from __future__ import annotations

from retfound_dist.evaluate.task_results.task_tables import (
    target_table,
    task_probe_tables,
    task_score_table,
    terminal_lines,
)
from tests.evaluate.tasks_made import FACTS, made_task


def test_undefined_scores_are_dashes_with_a_reason() -> None:
    tree = made_task("ordinal").metrics
    tree["scores"]["quadratic_kappa"] = tree["ci95"]["quadratic_kappa"] = None
    cell = task_score_table(FACTS["ordinal"], {"": tree})["lines"][0]["cells"][0]
    assert (cell["value"], cell["span"]) == ("-", "")
    assert cell["reason"]


def test_each_label_and_grade_has_a_line() -> None:
    for kind, names in {
        "multilabel": ["cyst", "fluid"],
        "ordinal": ["0", "1", "2"],
        "regression": ["age"],
    }.items():
        table = target_table(made_task(kind).metrics, FACTS[kind])
        assert [line["name"] for line in table["lines"]] == names
        assert all(len(line["cells"]) == len(table["columns"]) for line in table["lines"])


def test_rows_without_a_probe_have_no_line_in_its_table() -> None:
    one, other = made_task("ordinal").metrics, made_task("ordinal").metrics
    one["probe"] = {"linear": {"scores": one["scores"], "ci95": one["ci95"]}}
    (table,) = task_probe_tables(FACTS["ordinal"], {"one": one, "other": other})
    assert [line["name"] for line in table["lines"]] == ["one"]
    assert task_probe_tables(FACTS["ordinal"], {"other": other}) == []


def test_lines_of_the_terminal_have_equal_columns() -> None:
    trees = {name: made_task("regression", i).metrics for i, name in enumerate(("a", "longer name"))}
    assert len({len(line) for line in terminal_lines(FACTS["regression"], trees)}) == 1
