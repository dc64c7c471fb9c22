from __future__ import annotations

import pytest

from retfound_dist.config.schema import Alarm
from retfound_dist.evaluate.scores import probe_wording


def test_an_alarm_says_what_is_worse_than_what_by_which_score() -> None:
    rule = Alarm(method="knn", metric="auroc")
    falling = probe_wording.alarm_message("falling", 12000, 9000, rule, -0.05, [-0.07, -0.03])
    assert falling.startswith(
        "step 12,000 is worse than step 9,000, the best before it: nearest neighbours, AUROC "
        "−0.050 [−0.070, −0.030]. Check the recipe"
    )
    start = probe_wording.alarm_message("worse_than_start", 1, 0, rule, -0.05, [-0.07, -0.03])
    assert start.startswith("step 1 is worse than its own starting weights: ")


@pytest.mark.parametrize(
    ("difference", "span", "text"),
    [
        (0.05, [0.01, 0.09], "The attentive probe is better than the linear probe: AUPR +0.050, 95 % interval 0.010 to 0.090."),
        (-0.05, [-0.09, -0.01], "The attentive probe is worse than the linear probe: AUPR \u22120.050, 95 % interval \u22120.090 to \u22120.010."),
        (0.02, [-0.01, 0.05], "No clear difference between the attentive probe and the linear probe: AUPR +0.020, 95 % interval \u22120.010 to 0.050."),
    ],
)  # fmt: skip
def test_the_attentive_probe_is_better_only_where_the_whole_interval_says_so(
    difference: float, span: list[float], text: str
) -> None:
    gap = {"metric": "aupr", "difference": difference, "ci95": span, "real": span[0] * span[1] > 0}
    assert probe_wording.attentive_gain({"attentive": {"minus_linear": gap}}) == [text]


def test_without_both_probes_or_their_interval_nothing_is_said() -> None:
    unknown = {"metric": "aupr", "difference": None, "ci95": None, "real": False}
    for probes in (None, {}, {"linear": {}}, {"attentive": {}}, {"attentive": {"minus_linear": unknown}}):
        assert probe_wording.attentive_gain(probes) == []
