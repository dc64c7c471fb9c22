"""Which troubles of a store pass, and how long to go on asking."""

import errno

import pytest

from retfound_dist.io import retry, slow_store
from retfound_dist.io.retry import Patience, is_passing


class ClientError(Exception):
    """Named as aiohttp's, whose bodies break off."""


@pytest.mark.parametrize(
    "error", [TimeoutError(), ConnectionResetError(), OSError(errno.EIO, "input"), ClientError("body")]
)
def test_what_may_pass_is_asked_again(error: Exception) -> None:
    assert is_passing(error)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(),
        PermissionError(),
        OSError(errno.ENOSPC, "full"),
        ValueError("nonsense"),
        KeyError(),
    ],
)
def test_what_will_not_pass_is_not(error: Exception) -> None:
    assert not is_passing(error)


def announced_waits() -> list[slow_store._Wait]:
    return [wait for wait in slow_store._waits.values() if wait.what == "s3://bucket/x"]


def test_patience_ends_and_success_renews_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(retry, "pause", lambda tries, longest=0.0: now.__setitem__(0, now[0] + 4))
    patience, waits = Patience("s3://bucket/x", 20), 0
    while patience.wait(TimeoutError("late")):
        waits += 1
    assert waits == 5
    assert not announced_waits()
    patience.succeeded()
    assert patience.wait(TimeoutError("again"))
    assert [wait.why for wait in announced_waits()] == [
        "again"
    ]  # what is waited for is said: tests/io/test_slow_store.py
    patience.succeeded()
    assert not announced_waits()


def test_pauses_grow_to_a_bound_and_are_never_the_same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[float] = []
    monkeypatch.setattr("random.uniform", lambda low, high: bounds.append(high) or 0.0)
    for tries in range(12):
        retry.pause(tries)
    assert bounds == pytest.approx([min(10.0, 0.1 * 2**n) for n in range(12)])
