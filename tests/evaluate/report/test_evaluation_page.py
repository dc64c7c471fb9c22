"""The page: one file, no network, words that say no more than the numbers."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.evaluate.report.evaluation_page import comparison_page, evaluation_page
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.scores import wording
from tests.evaluate.clinical.drawn_page import clinical_evaluation
from tests.evaluate.inputs import checkpoint, class_folders
from tests.evaluate.made import evaluated, made_pictures, predictions


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of an evaluated checkpoint."""
    root = tmp_path_factory.mktemp("report")
    class_folders(root / "set", shade=0)
    return evaluated(root, checkpoint(root / "run", 7)) / "report.html"


class Links(HTMLParser):
    """Collects every src and href, and checks that tags are closed."""

    void = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def test_the_page_is_self_contained(page: Path) -> None:
    text = page.read_text()
    links = Links()
    links.feed(text)
    assert not links.open
    assert links.links
    assert all(link.startswith(("data:", "#")) for link in links.links)
    assert not re.search(r"@import|url\(\s*['\"]?https?:|<script|<link", text)


def test_the_page_serves_light_and_dark_and_phones(page: Path) -> None:
    text = page.read_text()
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.S))
    assert "var(--c1)" in drawn
    assert not re.search(r"#0000[ab]\d", text)
    assert not re.search(r"(?:fill|stroke): #[0-9a-f]{6}", drawn)


def test_every_section_is_there(page: Path) -> None:
    text = page.read_text()
    for title in (
        "<h2>Scores</h2>",
        "Pretraining: loss",
        "Fine-tuning: loss",
        "ROC, each class",
        "Precision and recall of each class",
        "ROC, mean over classes",
        "Calibration",
        "Frozen features",
        "Reconstructions",
        "The worst mistakes",
        "Confusion matrix",
        "step 7, 56 images seen",
    ):
        assert title in text, title
    held = evaluation_files.read(str(page.parent))
    assert held is not None
    assert text.count("data:image/webp;base64,") == 4 * 5 + 3 * len(held.pictures["mistakes"]["images"]) > 20


def test_an_evaluation_at_rest_draws_the_same_page_again(page: Path) -> None:
    held = evaluation_files.read(str(page.parent))
    assert held is not None
    assert evaluation_page(held) == page.read_text()


def test_an_evaluation_made_without_pictures_has_a_page_without_them(page: Path) -> None:
    held = evaluation_files.read(str(page.parent))
    assert held is not None
    text = evaluation_page(dataclasses.replace(held, pictures={}))
    assert "data:image" not in text
    for title in ("Frozen features", "Reconstructions", "The worst mistakes"):
        assert f"<h2>{title}" not in text


def test_alarms_stand_first_and_markup_in_them_stays_text() -> None:
    text = evaluation_page(predictions(0), alarms=["step 40 is worse than its start", "<script>x</script>"])
    assert text.index('class="alarms"') < text.index('class="summary"')
    assert "<li>step 40 is worse than its start</li>" in text
    assert "<script>" not in text
    assert 'class="alarms"' not in evaluation_page(predictions(0))
    rows = {"a": predictions(0), "b": predictions(1)}
    assert "<li>falls</li>" in comparison_page(rows, ["A sentence."], alarms=["falls"])


def test_every_row_of_a_comparison_is_in_its_tables() -> None:
    rows = {f"row{i}": predictions(i, pictures=made_pictures(i)) for i in range(2)}
    text = comparison_page(rows, ["A sentence."])
    for name in rows:
        assert text.count(f"<th>{name}</th>") == 2
        assert text.count(f"<h3>{name}</h3>") == 2, "calibration and features"
        assert text.count(f"<summary>{name}") == 2, "mistakes and classes"
    assert "rows are left out" not in text


def metrics(**changes: Any) -> dict[str, Any]:
    """A metrics.json of a good classifier."""
    macro = {"auroc": 0.9, "aupr": 0.8, "balanced_accuracy": 0.7, "undefined": {}}
    spans = {"auroc": [0.85, 0.95], "aupr": [0.7, 0.9], "balanced_accuracy": [0.6, 0.8]}
    return {
        "macro": macro,
        "legacy": {"undefined": {}},
        "ci95": {"macro": spans},
        "classes": ["A", "B"],
        "checkpoint": {"kind": "none", "url": "none", "step": None, "samples": None},
        "split": {"test": 100, "val": 10, "per_class": {"test": {"A": 50, "B": 50}}},
        "patients": 40,
        "bootstrap": {"unit": "patient", "units": 40, "resamples": 1000},
        "seeds": [0],
        "warnings": [],
        "skipped": [],
        **changes,
    }


def test_the_summary_has_scores_with_intervals_and_what_they_leave_out() -> None:
    text = " ".join(wording.summary(metrics()))
    assert "AUROC 0.900 [0.850, 0.950]" in text
    assert "100 test images of 40 patients" in text
    assert "only one seed was run" in text
    assert "may be due to guessing" not in text


def test_what_one_seed_alone_reaches_is_said_of_a_row_by_name() -> None:
    over = {"macro": {"auroc": {"mean": 0.8, "std": 0.02}}}
    several = metrics(seeds=[0, 1, 2], over_seeds=over)
    assert (
        "A single seed has a mean AUROC of 0.800 with a standard deviation of 0.020"
        in wording.describe_intervals(several)
    )
    assert "A single seed of “none” has a mean AUROC of 0.800" in wording.describe_intervals(several, "none")


def test_the_summary_says_when_a_result_may_be_guessing() -> None:
    spans = {"auroc": [0.4, 0.95], "aupr": [0.4, 0.9], "balanced_accuracy": [0.45, 0.8]}
    assert "may be due to guessing" in " ".join(wording.summary(metrics(ci95={"macro": spans})))


def test_few_patients_small_classes_and_skipped_images_are_warned_of() -> None:
    split = {"test": 30, "val": 0, "per_class": {"test": {"A": 26, "B": 4}}}
    few = {"unit": "patient", "units": 12, "resamples": 100}
    skipped = [{"key": "a.jpg", "reason": "cut"}]
    said = " ".join(wording.warnings(metrics(split=split, bootstrap=few, skipped=skipped)))
    for text in ("only 12 patients", "fewer than 10 test images of B", "a.jpg: cut", "no validation part"):
        assert text in said


def test_what_a_clinic_asks_is_on_the_page_and_names_of_groups_are_text() -> None:
    page = evaluation_page(clinical_evaluation())
    for text in (
        "For clinical use",
        "Thresholds for a specificity 95 % on val, applied to test",
        "Reliability before temperature scaling",
        "Reliability after temperature scaling",
        "Decision curve: MH or not",
        "Brier score of each class",
        "By device",
        "it has only 5 images, fewer than 10",
    ):
        assert text in page
    assert "&lt;b&gt;B&lt;/b&gt; $x$" in page
    assert "<b>B</b>" not in page


def test_a_page_without_clinical_scores_has_no_section_of_them() -> None:
    page = evaluation_page(predictions(0))
    assert "For clinical use" not in page
    assert "Subgroups" not in page


def test_a_comparison_shows_the_sensitivity_of_each_row() -> None:
    rows = {name: clinical_evaluation(seed=seed) for seed, name in enumerate(("one", "other"))}
    assert "Sensitivity for each class at a specificity of 95 %" in comparison_page(rows, [])
