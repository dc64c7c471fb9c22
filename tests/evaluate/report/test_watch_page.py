"""The page of a watched run: probes over steps, alarms first, and what is there before anything is."""

from __future__ import annotations

from retfound_dist.evaluate.report.watch_page import history_plots, watch_page
from tests.evaluate.made import made_pictures, predictions, watch_tree


def test_alarms_and_all_steps_are_on_the_page_of_a_watched_run() -> None:
    tuned = {3000: predictions(0, pictures=made_pictures(0)), 6000: predictions(1)}
    text = watch_page(watch_tree(6, alarms=True), tuned)
    assert text.index('class="alarms"') < text.index("step 6,000 is worse than the best before it")
    for name in ("starting weights", *(f"step {1000 * i:,}" for i in range(1, 7))):
        assert text.count(f"<th>{name}</th>") >= 2, "a line for the linear probe, one for the neighbours"
    assert text.count("<th>step 3,000</th>") == 4, "and two for its fine-tuning"
    for title in ("AUPR over the run", "Calibration", "Frozen features", "The worst mistakes"):
        assert title in text
    assert "No alarm was raised" not in text


def test_a_run_of_which_nothing_is_known_yet_has_a_page() -> None:
    empty = {"run": "runs/vitl", "start": None, "rows": [], "alarms": []}
    text = watch_page(empty, {})
    assert "No checkpoint has been probed yet" in text
    assert "<svg" not in text
    probed = watch_page({**watch_tree(1), "start": None}, {})
    assert "Class by class" not in probed
    assert "No alarm was raised" in probed


def test_the_history_shows_alarms_and_starting_weights_of_each_score() -> None:
    auroc, aupr, balanced = history_plots(watch_tree(6, alarms=True))
    assert ">alarm<" in aupr.svg
    assert ">alarm<" not in auroc.svg + balanced.svg
    assert [name for _, name in aupr.legend] == [
        "Linear probe",
        "k-nearest neighbours",
        "fine-tuned (test part)",
    ]
    assert "starting weights" in aupr.note
    (only,) = {len(plot.legend) for plot in history_plots({**watch_tree(2), "start": None})}
    assert only == 2, "nothing is fine-tuned yet"
