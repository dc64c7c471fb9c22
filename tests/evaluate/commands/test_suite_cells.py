"""Cells of a suite: their settings, and making them side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retfound_dist.config.schema import External, SuiteConfig, SuiteOut, SuiteSet
from retfound_dist.evaluate.commands.suite_cells import cell_config, set_comparison
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.suite.cell_shares import SuiteCell
from tests.evaluate.commands.test_suite import CELLS, make_inputs, suite


def test_a_cell_has_the_settings_of_its_set_and_the_common_ones() -> None:
    config = SuiteConfig(
        weights={"none": "none", "ours": "w.pth"},
        sets={"a": SuiteSet(path="x", label_share=0.5, external=External(path="e")), "b": SuiteSet(path="y")},
        out=SuiteOut(url="o"),
        seeds=(3, 4),
        bootstrap=7,
    )
    one = cell_config(config, SuiteCell("a", "ours"))
    assert (one.checkpoint, one.data.path, one.external.path, one.out.url) == ("w.pth", "x", "e", "o/a/ours")
    assert (one.seeds, one.bootstrap, one.data.label_share) == ((3, 4), 7, 0.5)
    comparison = set_comparison(config, "b")
    assert (comparison.out.url, comparison.data.path, comparison.external.path) == ("o/b", "y", "")


@pytest.mark.slow
def test_cells_of_all_sets_side_by_side_give_what_cells_one_by_one_give(tmp_path: Path) -> None:
    for name, jobs in (("alone", 1), ("together", 2)):
        (tmp_path / name).mkdir()
        suite(make_inputs(tmp_path / name), f"jobs={jobs}", "threads=2")
    for set_name, row in CELLS:
        alone, together = (
            evaluation_files.read(str(tmp_path / name / "out" / set_name / row))
            for name in ("alone", "together")
        )
        assert alone is not None
        assert together is not None
        assert np.allclose(alone.probabilities_NC, together.probabilities_NC, atol=1e-4)
