"""The tables of a suite mark the best row of each set and its ties."""

from __future__ import annotations

from retfound_dist.evaluate.suite.rank_statistics import rank_summary
from retfound_dist.evaluate.suite.suite_tables import MEAN_RANK, pair_table, set_table, terminal_lines
from tests.evaluate.suite.compared_sets import compared_sets

SETS = compared_sets(["none", "ours", "mae"], [[0.5, 0.9, 0.88], [0.7, 0.6, None]])


def test_each_set_is_a_line_with_its_best_row_bold_and_ties_marked() -> None:
    table = set_table(rank_summary("aupr", SETS), SETS, {"s0": "s0/report.html"})
    assert table["columns"] == ["none", "ours", "mae"]
    first, second = table["lines"]
    assert (first["name"], first["link"]) == ("s0", "s0/report.html")
    assert [(c["value"], c["best"], c["tied"]) for c in first["cells"]] == [
        ("0.500", False, False), ("0.900", True, False), ("0.880", False, True)]  # fmt: skip
    assert first["cells"][1]["span"] == "0.800 to 1.000"
    assert (second["cells"][2]["value"], second["cells"][2]["reason"]) == ("-", "class B has no test image")


def test_mean_ranks_are_the_last_line_where_several_sets_have_ranks() -> None:
    sets = compared_sets(["a", "b"], [[0.5, 0.9], [0.7, 0.8]])
    lines = set_table(rank_summary("aupr", sets), sets, {})["lines"]
    assert lines[-1]["name"] == MEAN_RANK
    assert [(cell["value"], cell["best"]) for cell in lines[-1]["cells"]] == [("2.00", False), ("1.00", True)]


def test_pairs_show_wins_ties_losses_and_both_p() -> None:
    sets = compared_sets(["a", "b"], [[0.5, 0.9], [0.7, 0.8], [0.80, 0.81]])
    (line,) = pair_table(rank_summary("aupr", sets))["lines"]
    assert line["name"] == "a and b"
    assert [cell["value"] for cell in line["cells"]] == ["0", "1", "2", "0.25", "0.25"]


def test_the_terminal_shows_the_same_values_in_columns() -> None:
    sets = compared_sets(["a", "long_name"], [[0.5, 0.9], [0.7, 0.8]])
    lines = terminal_lines(set_table(rank_summary("aupr", sets), sets, {}))
    assert lines == [
        "AUPR on each set      a  long_name",
        "s0                0.500      0.900",
        "s1                0.700      0.800",
        "mean rank          2.00       1.00",
    ]


def test_equal_scores_are_all_bold_and_not_marked_as_ties() -> None:
    sets = compared_sets(["a", "b"], [[0.9, 0.9]])
    (line,) = set_table(rank_summary("aupr", sets), sets, {})["lines"]
    assert [(cell["best"], cell["tied"]) for cell in line["cells"]] == [(True, False), (True, False)]
