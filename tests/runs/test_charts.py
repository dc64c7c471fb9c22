"""The curves of a run's page."""

from pathlib import Path

import pytest

from retfound_dist.runs.charts import step_bands, thin, time_bands
from retfound_dist.runs.run_facts import read_run
from tests.runs.made_runs import make_run


def test_bands_are_where_the_number_of_ranks_was_the_same(tmp_path: Path) -> None:
    run = read_run(make_run(str(tmp_path / "run"), parts=(2, 3)))
    assert [(b.begin, b.end, b.ranks) for b in step_bands(run)] == [(0, 50, 2), (50, 100, 3)]
    first, second = time_bands(run)
    assert (first.ranks, second.ranks) == (2, 3)
    assert first.begin == 0
    assert first.end * 3600 == pytest.approx(520)
    assert second.begin * 3600 == pytest.approx(800)


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    points = [(float(x), float(x)) for x in range(10_001)]
    found = thin(points, 500)
    assert len(found) <= 500
    assert found[-1][0] == 10_000
    assert thin(points[:10], 500) == points[:10]
