"""An evaluation in memory: its bootstrap units, seeds and remarks."""

from __future__ import annotations

import dataclasses

import numpy as np

from retfound_dist.evaluate.results.evaluation_files import unit_names
from tests.evaluate.made import predictions


def test_units_are_those_that_metrics_json_names() -> None:
    row = predictions(0, images=4)
    assert row.units == []
    units = [("volume", name) for name in "aabb"]
    drawn = {"unit": "volume", "units": 2, "resamples": 50, **unit_names("volume", units)}
    named = dataclasses.replace(row, metrics={**row.metrics, "bootstrap": drawn})
    assert [name for _, name in named.units] == [f"volume {name}" for name in "aabb"]


def test_one_seed_is_a_seed_too() -> None:
    row = predictions(0, images=4)
    assert row.seed_probabilities_SNC.shape == (1, 4, 3)
    two = dataclasses.replace(row, probabilities_SNC=np.stack([row.probabilities_NC] * 2))
    assert two.seed_probabilities_SNC.shape == (2, 4, 3)


def test_old_probes_and_lost_lines_of_the_history_are_remarked() -> None:
    row = dataclasses.replace(predictions(0, images=4), history_fault="3 lines are lost")
    assert row.remarks == ["3 lines are lost"]
    old = dataclasses.replace(row, metrics={**row.metrics, "probe": {}})
    assert len(old.remarks) == 2
    assert "earlier version" in old.remarks[1]
