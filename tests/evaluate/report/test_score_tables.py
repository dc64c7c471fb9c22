"""Scores as tables: the best marked, what is not told apart from it too, and probes on their own."""

from __future__ import annotations

import dataclasses

import pytest

from retfound_dist.evaluate.report.evaluation_page import comparison_page, evaluation_page
from retfound_dist.evaluate.report.score_tables import (
    class_details,
    external_details,
    external_tables,
    probe_tables,
    score_table,
)
from retfound_dist.evaluate.scores.metrics import best_value
from tests.evaluate.made import predictions


def test_probes_have_tables_of_their_own_where_they_were_made() -> None:
    row = predictions(0)
    probe = {"macro": row.metrics["macro"], "ci95": row.metrics["ci95"]}
    probed = dataclasses.replace(row, metrics={**row.metrics, "probe": {"linear": probe, "knn": probe}})
    assert "Linear probe" not in evaluation_page(row)
    text = evaluation_page(probed)
    for title in ("Linear probe", "k-nearest neighbours"):
        assert f"<h3>{title}</h3>" in text
    linear, nearest = probe_tables({"with": probed.metrics, "without": row.metrics})
    assert [line["name"] for line in linear["lines"]] == ["with"]
    value = linear["lines"][0]["cells"][linear["columns"].index("AUROC")]["value"]
    assert value == f"{row.metrics['macro']['auroc']:.3f}"
    assert nearest["lines"][0]["cells"][0]["span"]


def test_scores_that_are_not_told_apart_from_the_best_are_marked_in_the_table() -> None:
    rows = {f"row{i}": predictions(i) for i in range(2)}
    ties = {"macro": {"auroc": ["row1"], "mcc": ["row0"]}, "legacy": {"acc": ["row0"]}}
    text = comparison_page(rows, ["A sentence."], ties=ties)
    assert text.count("&asymp;") == 3
    assert text.count("no clear difference from the best (paired bootstrap)") == 2
    assert "&asymp;" not in comparison_page(rows, ["A sentence."])


def test_the_best_is_the_highest_score_and_the_lowest_error_among_those_that_are_defined() -> None:
    assert best_value([0.2, None, 0.7], "auroc") == 0.7
    assert best_value([0.2, None, 0.7], "log_loss") == best_value([0.2, None, 0.7], "ece") == 0.2
    assert best_value([None, None], "auroc") is None
    assert best_value([None, 2.0, 1.0], "mae") == 1.0


def test_one_row_alone_is_not_called_the_best_and_an_undefined_score_says_why() -> None:
    tree = predictions(0).metrics
    tree["macro"]["auroc"], tree["macro"]["undefined"] = None, {"auroc": "no image of MH"}
    table = score_table("macro", {"": tree})
    cells = table["lines"][0]["cells"]
    assert not any(cell["best"] for cell in cells)
    undefined = cells[table["columns"].index("AUROC")]
    assert (undefined["value"], undefined["span"], undefined["reason"]) == ("-", "", "no image of MH")


def test_each_class_has_its_count_and_the_confusion_matrix_as_shares_of_it() -> None:
    row = predictions(0, images=90)
    shown = class_details("row", row)
    assert [line["cells"][0] for line in shown["per_class"]] == ["30", "30", "30"]
    assert sum(map(sum, shown["counts"])) == 90
    for counts, shares in zip(shown["counts"], shown["shares"], strict=True):
        assert shares == pytest.approx([count / 30 for count in counts], abs=5e-4)
    assert external_details("row", row) == external_tables({"row": row.metrics}) == []


@pytest.mark.parametrize("unit", [{}, {"unit": "eye"}])
def test_an_external_set_of_eyes_counts_eyes(unit: dict[str, str]) -> None:
    row = predictions(0)
    row.metrics["external"] = {name: tree for name, tree in row.metrics.items() if name != "split"} | unit
    (shown,) = external_details("row", row)
    assert shown["noun"] == shown["columns"][0] == ("eyes" if unit else "images")
