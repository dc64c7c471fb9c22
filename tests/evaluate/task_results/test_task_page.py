"""Pages of tasks: whole, with the plots of their kind, and readable on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.evaluate.task_results.task_comparison import task_comparison
from retfound_dist.evaluate.task_results.task_evaluation import TaskEvaluation
from retfound_dist.evaluate.task_results.task_page import task_comparison_page, task_page
from tests.browser import assert_fits
from tests.evaluate.tasks_made import FACTS, made_task

TITLES = {
    "multilabel": ("ROC of each label", "Precision and recall of each label", "Label by label"),
    "regression": ("Predicted against true", "Bland-Altman", "The number"),
    "ordinal": ("Confusion of grades", "Grade by grade"),
}


@pytest.mark.parametrize("kind", FACTS)
def test_a_page_has_the_plots_and_scores_of_its_kind(kind: str) -> None:
    page = task_page(made_task(kind))
    for title in TITLES[kind]:
        assert title in page
    others = {title for other in FACTS if other != kind for title in TITLES[other]}
    assert not [title for title in others if title in page]
    assert "3 of 60 images have no value of" in page
    assert "nan" not in page.lower().replace("nanometre", "")


@pytest.fixture
def rows() -> dict[str, TaskEvaluation]:
    """Two rows of regression, of which the second is better."""
    return {"scratch": made_task("regression", error=3.0), "good": made_task("regression", 1, error=0.2)}


def test_a_comparison_shows_each_row_and_its_sentences(rows: dict[str, TaskEvaluation]) -> None:
    tree = task_comparison(rows, 100)
    page = task_comparison_page(rows, tree["sentences"], tree["ties"])
    assert "“good” is better than no pretraining" in page
    assert page.count("Bland-Altman") == 2


@pytest.mark.cluster
def test_pages_open_on_a_phone_and_on_a_desk_without_complaint(
    rows: dict[str, TaskEvaluation], tmp_path: Path
) -> None:
    pages = [task_page(made_task(kind)) for kind in FACTS]
    for page in (*pages, task_comparison_page(rows, ["A sentence."], {})):
        path = tmp_path / "report.html"
        path.write_text(page)
        assert_fits(path, tmp_path, images=0)


def test_many_rows_have_scores_but_only_some_have_plots() -> None:
    rows = {f"row{i}": made_task("ordinal", seed=i, images=20) for i in range(10)}
    page = task_comparison_page(rows, ["A sentence."], {})
    assert page.count("Confusion of grades") == 8
    assert "2 rows have none" in page
    assert "row9" in page
