"""Tables have a line for each question and group, their numbers, and a reason for each dash."""

from __future__ import annotations

import pytest

from retfound_dist.config.schema import Clinical
from retfound_dist.evaluate.clinical.clinical_tables import (
    brier_tables,
    compared_table,
    percent,
    point_tables,
    subgroup_tables,
)
from retfound_dist.evaluate.scores import wording
from tests.evaluate.clinical.drawn_page import DEVICE, clinical_evaluation
from tests.evaluate.inputs import CLASSES
from tests.evaluate.made import predictions


@pytest.mark.parametrize(("share", "text"), [(0.95, "95 %"), (0.025, "2.5 %"), (0.0001, "0.01 %")])
def test_shares_are_read_as_percent(share: float, text: str) -> None:
    assert percent(share) == text


def test_each_target_has_a_table_with_a_line_for_each_class() -> None:
    clinical = clinical_evaluation(Clinical(prevalence={"MH": 0.02})).metrics["clinical"]
    tables = point_tables(clinical)
    assert [table["title"] for table in tables] == [
        f"Thresholds for a {target} on val, applied to test"
        for target in ("specificity 90 %", "specificity 95 %", "sensitivity 90 %", "sensitivity 95 %")
    ]
    for place, table in enumerate(tables):
        assert [line["name"] for line in table["lines"]] == list(CLASSES)
        assert table["columns"][6:8] == ["PPV at 2 %", "NPV at 2 %"]
        for name, line in zip(CLASSES, table["lines"], strict=True):
            point = clinical["questions"][name]["operating_points"][place]
            assert len(line["cells"]) == len(table["columns"])
            assert line["cells"][1]["value"] == wording.format_number(point["threshold"])
            assert line["cells"][2]["value"] == wording.format_number(point["test"]["sensitivity"])
            assert (line["cells"][6]["reason"] == "no prevalence of this class is stated") == (name != "MH")
    assert tables[0]["columns"][-1] == "sensitivity, test ROC"
    assert tables[2]["columns"][-1] == "specificity, test ROC"


def test_one_question_has_one_table_of_all_targets() -> None:
    (table,) = point_tables(clinical_evaluation(Clinical(positive=("CSR", "MH"))).metrics["clinical"])
    assert table["title"] == "CSR or MH or not: thresholds chosen on val, applied to test"
    assert [line["name"] for line in table["lines"]] == [
        *("specificity 90 % on val", "specificity 95 % on val"),
        *("sensitivity 90 % on val", "sensitivity 95 % on val"),
    ]
    assert "PPV at 2 %" not in table["columns"]


def test_without_a_threshold_there_are_dashes_with_the_reason() -> None:
    tables = point_tables(clinical_evaluation(val=9).metrics["clinical"])
    for table in tables:
        assert "No threshold: val has only" in table["note"]
        for line in table["lines"]:
            assert [cell["value"] for cell in line["cells"][1:6]] == ["-"] * 5
            assert all("fewer than 10" in cell["reason"] for cell in line["cells"][1:6])
            assert line["cells"][-1]["value"] != "-"


def test_brier_scores_before_and_after_stand_in_one_table() -> None:
    calibration = clinical_evaluation().metrics["clinical"]["calibration"]
    whole, each = brier_tables(calibration)
    assert [line["name"] for line in whole["lines"]] == ["before scaling", "after scaling", "change"]
    assert [line["name"] for line in each["lines"]] == list(CLASSES)
    for table in (whole, each):
        assert all(len(line["cells"]) == len(table["columns"]) for line in table["lines"])
    value = calibration["calibrated"]["brier"]["value"]
    assert whole["lines"][1]["cells"][0]["value"] == wording.format_number(value)


def test_groups_have_counts_scores_and_gaps_with_corrected_p() -> None:
    subgroups = clinical_evaluation().metrics["subgroups"]
    (table,) = subgroup_tables(subgroups)
    first, second, unknown = table["lines"]
    assert [line["name"] for line in table["lines"]] == ["A", "<b>B</b> $x$", "unknown"]
    assert first["cells"][0]["value"] == "60"
    assert [cell["value"] for cell in first["cells"][-3:]] == [""] * 3
    gap = subgroups["columns"]["device"]["groups"]["<b>B</b> $x$"]["gap"]["auroc"]
    assert second["cells"][-3]["span"].endswith(f"; p {wording.format_p(gap['p_holm'])}")
    assert second["cells"][-3]["best"] == gap["clear"]
    assert unknown["cells"][2] == {
        **{"value": "-", "span": "", "best": False, "tied": False},
        "reason": "it has only 5 images, fewer than 10",
    }
    assert all(len(line["cells"]) == len(table["columns"]) for line in table["lines"])


@pytest.mark.parametrize(
    ("noun", "counted"), [("eyes", ["eyes", "patients"]), ("patients", ["patients", "AUROC"])]
)
def test_columns_and_notes_name_what_is_scored(noun: str, counted: list[str]) -> None:
    metrics = clinical_evaluation(groupings=(DEVICE,)).metrics
    assert point_tables(metrics["clinical"], noun)[0]["columns"][0] == noun
    (table,) = subgroup_tables(metrics["subgroups"], noun)
    assert table["columns"][:2] == counted
    assert all(len(line["cells"]) == len(table["columns"]) for line in table["lines"])
    metrics["subgroups"]["columns"]["device"]["reference"] = None
    (table,) = subgroup_tables(metrics["subgroups"], noun)
    assert table["note"].startswith(f"None of the test {noun} has a known value, so there are no gaps.")


def test_a_comparison_has_one_table_of_the_highest_specificity_or_none() -> None:
    one, other = (clinical_evaluation(seed=seed).metrics for seed in (0, 1))
    (table,) = compared_table({"one": one, "other": other})
    assert table["title"] == "Sensitivity for each class at a specificity of 95 %"
    assert table["columns"] == list(CLASSES)
    sensitivity = other["clinical"]["questions"]["MH"]["operating_points"][1]["test"]["sensitivity"]
    assert table["lines"][1]["cells"][1]["value"] == wording.format_number(sensitivity)
    assert compared_table({"one": one, "old": predictions(0).metrics}) == []
    asked_otherwise = clinical_evaluation(Clinical(positive=("MH",))).metrics
    assert compared_table({"one": one, "other": asked_otherwise}) == []
    without = clinical_evaluation(Clinical(specificities=())).metrics
    assert compared_table({"one": without}) == []
