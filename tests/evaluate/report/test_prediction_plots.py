"""What the test part's predictions and features show: curves, calibration, and points of the features."""

from __future__ import annotations

import pytest

from retfound_dist.evaluate.report import prediction_plots
from retfound_dist.evaluate.report.prediction_plots import (
    calibration_plots,
    class_plots,
    feature_plots,
    mean_plots,
)
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
