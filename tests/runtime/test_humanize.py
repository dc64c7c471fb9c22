"""Numbers as a person says them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retfound_dist.runtime.humanize import duration, flops, plural, size


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (512, "512 B"), (9.1e9, "9.1 GB"), (1.32e12, "1.32 TB"), (999_600_000, "1 GB"),
     (999.7, "1 kB"), (2.5e15, "2,500 TB")],
)  # fmt: skip
def test_bytes(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (124e9, "124 GFLOP"),
        (9.996e11, "1 TFLOP"),
        (1.8e19, "18 EFLOP"),
        (8e21, "8,000 EFLOP"),
        (12, "12 FLOP"),
    ],
)
def test_operations(count: float, text: str) -> None:
    assert flops(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.05, "50 ms"),
        (0.9996, "1 s"),
        (45, "45 s"),
        (720, "12 min"),
        (12_600, "3.5 h"),
        (181_440, "2.1 days"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_live_display_shows_no_part_of_a_second() -> None:
    texts = [duration(seconds, whole=True) for seconds in (0.0, 4.4, 89.2, 200, 7500)]
    assert texts == ["0 s", "4 s", "89 s", "3 min", "2.1 h"]


def test_one_is_not_many() -> None:
    assert (plural(1, "node"), plural(3, "node"), plural(1200, "image")) == (
        "1 node",
        "3 nodes",
        "1,200 images",
    )


@given(st.floats(0, 1e24))
def test_no_number_is_said_with_an_exponent(count: float) -> None:
    for text in (size(count), flops(count)):
        assert "e+" not in text


@given(st.floats(1, 9e20))
def test_what_is_said_is_within_half_a_percent(count: float) -> None:
    scales = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
    number, unit = size(count).split()
    assert float(number.replace(",", "")) * scales[unit] == pytest.approx(count, rel=0.005, abs=0.5)
