"""What the test part's predictions and features show: curves, calibration, and points of the features."""

from __future__ import annotations

import pytest

from retfound_dist.evaluate.report import figures, prediction_plots
from retfound_dist.evaluate.report.prediction_plots import (
    MAX_DECISION_CURVES,
    calibration_plots,
    class_plots,
    decision_plots,
    feature_plots,
    mean_plots,
    reliability_plots,
    subgroup_plots,
)
from tests.evaluate.clinical.drawn_page import clinical_evaluation
from tests.evaluate.inputs import CLASSES
from tests.evaluate.made import made_pictures, predictions


def test_each_class_is_named_with_the_area_under_its_curve() -> None:
    row = predictions(0)
    roc, precision = class_plots(row)
    for plot, score in ((roc, "auroc"), (precision, "aupr")):
        assert [name for _, name in plot.legend] == [
            f"{c} {row.metrics['per_class'][c][score]:.3f}" for c in CLASSES
        ]


def test_mean_curves_are_named_where_there_are_several_and_left_out_where_they_are_undefined() -> None:
    row, one_class = predictions(0), predictions(0, absent=(1, 2))
    assert [plot.legend for plot in mean_plots({"": row})] == [[], []]
    assert [plot.legend for plot in mean_plots({"a": row, "b": row})] == [[(0, "a"), (1, "b")]] * 2
    assert mean_plots({"a": one_class}) == []


def test_features_of_other_images_than_were_scored_are_not_shown() -> None:
    row = predictions(0, images=90, pictures=made_pictures(0, images=90))
    (plot,) = feature_plots({"row": row, "without": predictions(1)})
    assert (plot.title, plot.note, plot.shapes) == ("row", "90 test images", True)
    row.pictures["features"]["points"].pop()
    assert feature_plots({"row": row}) == []


def test_of_very_many_images_a_spread_of_them_is_drawn_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    row = predictions(0, images=90, pictures=made_pictures(0, images=90))
    (whole,) = feature_plots({"row": row})
    monkeypatch.setattr(prediction_plots, "MAX_POINTS", 40)
    (plot,) = feature_plots({"row": row})
    assert plot.note == "40 of 90 test images"
    left_out = whole.svg.count("<use ") - plot.svg.count("<use ")
    assert left_out == pytest.approx(50, abs=5), "but for a few ticks of the axes"


def test_calibration_is_shown_with_its_error() -> None:
    row = predictions(0)
    (plot,) = calibration_plots({"row": row})
    assert plot.note.startswith(f"Calibration error {row.metrics['macro']['ece']:.3f} [")


def test_names_of_groups_are_no_formulas_and_no_markup() -> None:
    subgroups = clinical_evaluation().metrics["subgroups"]
    (plot,) = subgroup_plots(subgroups)
    assert "<b>" not in plot.svg
    assert plot.title == "AUROC by device"
    column = subgroups["columns"]["device"]
    column["groups"]["$\\frac{$" + "long" * 20] = column["groups"].pop("A")
    (plot,) = subgroup_plots(subgroups)
    assert "long" * 20 not in plot.svg


def test_a_decision_curve_ends_treating_everybody_where_it_would_leave_the_plot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Treating everybody has a benefit of \u221230 at a threshold of 98 %: one could see nothing else."""
    clinical, drawn = clinical_evaluation().metrics["clinical"], []
    draw = figures.line_chart
    monkeypatch.setattr(figures, "line_chart", lambda lines, *a: drawn.append(lines) or draw(lines, *a))
    plots = decision_plots(clinical)
    assert [plot.title for plot in plots] == [f"Decision curve: {name} or not" for name in CLASSES]
    assert len(drawn) == len(CLASSES)
    for (model, everybody, nobody), name in zip(drawn, CLASSES, strict=True):
        curve = clinical["questions"][name]["decision_curve"]
        floor = -0.25 * max(*curve["model"], *curve["treat_all"])
        kept = len(everybody.y)
        assert 0 < kept < len(model.x) <= len(curve["model"])
        assert everybody.y.tolist() == curve["treat_all"][:kept]
        assert curve["treat_all"][kept] < floor <= curve["treat_all"][kept - 1]
        assert min(model.y.min(), *(side.min() for side in model.band)) >= floor
        assert nobody.x.tolist() == model.x.tolist()
        assert not nobody.y.any()
    many = {"questions": {f"c{i}": clinical["questions"]["MH"] for i in range(12)}}
    assert len(decision_plots(many)) == MAX_DECISION_CURVES


def test_reliability_is_drawn_before_and_after_scaling() -> None:
    before, after = reliability_plots(clinical_evaluation())
    assert before.svg != after.svg
    assert reliability_plots(predictions(0)) == []
