"""How long a run has to save, and what a save takes."""

import pytest

from retfound_dist.estimate import save_time
from retfound_dist.estimate.save_time import Grace, SaveTime


def test_torchrun_waits_30_s_unless_told_otherwise() -> None:
    here = {"TORCHELASTIC_RUN_ID": "some"}
    assert [found.seconds for found in save_time.known_graces(here)] == [30]
    assert [found.seconds for found in save_time.known_graces(here | {save_time.TORCHRUN: "300"})] == [300]
    assert save_time.known_graces({}) == []


def test_a_first_save_is_reckoned_from_what_a_host_has_to_move() -> None:
    one = save_time.expected_save_time(4e9, 1e9, hosts=1, step_s=2)
    assert one.seconds == pytest.approx(2 + (2 * 5e9 + 2e9) / save_time.ASSUMED_BYTES_PER_S)
    two = save_time.expected_save_time(4e9, 1e9, hosts=2)
    assert two.seconds == pytest.approx((5e9 + 2e9) / save_time.ASSUMED_BYTES_PER_S)
    assert "assumed" in two.source


def test_the_longest_of_the_last_saves_counts_where_there_were_any() -> None:
    assert save_time.measured_save_time([{"event": "start"}]) is None
    events = [{"event": "checkpoint", "took_s": took} for took in (99, 3, 7, 4, 5, 6)]
    found = save_time.measured_save_time(events, step_s=0.5)
    assert found
    assert found.seconds == 7.5


def test_who_waits_too_short_is_named_with_what_to_do_instead() -> None:
    need = SaveTime(50, "as measured")
    short, long = Grace(30, "scancel", "scancel --signal=TERM"), Grace(60, "torchrun", "wait")
    said, warned = save_time.save_time_lines([short, long], need, grace_s=300)
    assert "about 50 s (as measured)" in said
    assert "scancel: 30 s" in said
    assert len(warned) == 1
    assert "scancel allows 30 s" in warned[0]
    assert warned[0].endswith("Instead: scancel --signal=TERM")
    assert "train.grace_s=40: set it higher" in save_time.grace_warnings([], need, 40)[0]
    assert save_time.grace_warnings([long], need, 50) == []
