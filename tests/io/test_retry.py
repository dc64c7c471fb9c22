"""Which troubles of a store pass, and how long to go on asking."""

import errno
import time

import pytest

from retfound_dist.errors import StorageError
from retfound_dist.io import retry, slow_store
from retfound_dist.io.retry import Patience, call_with_retries, is_transient


class ClientError(Exception):
    """Named as aiohttp's, whose bodies break off."""


@pytest.mark.parametrize(
    "error", [TimeoutError(), ConnectionResetError(), OSError(errno.EIO, "input"), ClientError("body")]
)
def test_what_may_pass_is_asked_again(error: Exception) -> None:
    assert is_transient(error)


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
    assert not is_transient(error)


def announced_waits() -> list[slow_store._Wait]:
    return [wait for wait in slow_store._waits.values() if wait.request == "s3://bucket/x"]


def test_patience_ends_and_success_renews_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(
        retry, "sleep_before_retry", lambda tries, longest=0.0: now.__setitem__(0, now[0] + 4)
    )
    patience, waits = Patience("s3://bucket/x", 20), 0
    while patience.wait(TimeoutError("late")):
        waits += 1
    assert waits == 5
    assert not announced_waits()
    patience.succeeded()
    assert patience.wait(TimeoutError("again"))
    assert [wait.reason for wait in announced_waits()] == [
        "again"
    ]  # what is waited for is said: tests/io/test_slow_store.py
    patience.succeeded()
    assert not announced_waits()


def test_pauses_grow_to_a_bound_and_are_never_the_same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[float] = []
    monkeypatch.setattr("random.uniform", lambda low, high: bounds.append(high) or 0.0)
    for tries in range(12):
        retry.sleep_before_retry(tries)
    assert bounds == pytest.approx([min(10.0, 0.1 * 2**n) for n in range(12)])


def test_what_fails_for_a_while_is_tried_until_it_works() -> None:
    tries: list[float] = []

    def attempt() -> str:
        tries.append(time.monotonic())
        if len(tries) < 4:
            raise StorageError("no space left")
        return "done"

    assert call_with_retries(attempt, Patience("somewhere", 60)) == "done"
    assert len(tries) == 4


def test_patience_ends_with_the_reason() -> None:
    def attempt() -> None:
        raise StorageError("no space left")

    with pytest.raises(StorageError, match=r"no space left \(tried for 1 s\)"):
        call_with_retries(attempt, Patience("somewhere", 1))


def test_a_permanent_error_is_raised_at_once() -> None:
    attempts: list[int] = []

    def refused() -> None:
        attempts.append(1)
        raise StorageError("access denied")

    with pytest.raises(StorageError, match=r"^access denied$"):
        call_with_retries(refused, Patience("somewhere", 60), lambda error: True)
    assert len(attempts) == 1
