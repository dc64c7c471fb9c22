"""Calls in processes; above all: a process that is killed anywhere is an error, and no wait without end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool

import pytest

from retfound_dist.runtime.worker_pool import WorkerPool

CONTEXT = multiprocessing.get_context("spawn")


def start(value: str = "") -> None:
    os.environ["STARTED_WITH"] = value


def started_with(number: int) -> tuple[int, str]:
    return number, os.environ["STARTED_WITH"]


def fail(text: str) -> None:
    raise ValueError(text)


def unsendable() -> object:
    return threading.Lock()


def die() -> None:
    os._exit(3)


def large_then_killed(size: int) -> bytes:
    """A result far larger than a pipe, whose sender is killed while it is half written."""
    threading.Thread(target=_kill_soon, daemon=True).start()
    return bytes(size)


def _kill_soon() -> None:
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2, CONTEXT, start, ("here",)) as made:
        yield made


def test_calls_run_in_processes_that_were_started_as_asked(pool: WorkerPool) -> None:
    results = [pool.submit(started_with, number) for number in range(6)]
    assert [one.result(60) for one in results] == [(number, "here") for number in range(6)]


def test_an_error_of_a_call_is_its_own_and_names_where_it_came_from(pool: WorkerPool) -> None:
    with pytest.raises(ValueError, match="bad") as raised:
        pool.submit(fail, "bad").result(60)
    assert "in fail" in raised.value.__notes__[0]
    with pytest.raises(RuntimeError, match="the result cannot be sent"):
        pool.submit(unsendable).result(60)
    assert pool.submit(started_with, 1).result(60) == (1, "here")


def test_a_process_that_dies_ends_all_calls_and_later_ones(pool: WorkerPool) -> None:
    calls = [pool.submit(die), *(pool.submit(time.sleep, 60) for _ in range(5))]
    for call in calls:
        with pytest.raises(BrokenProcessPool):
            call.result(60)
    with pytest.raises(BrokenProcessPool):
        pool.submit(started_with, 1)


def test_processes_killed_in_the_middle_of_a_large_result_are_an_error(pool: WorkerPool) -> None:
    """The parent stops reading for a moment, so that the results stand half written in their pipes."""
    real, gate = multiprocessing.connection.Connection.recv, threading.Event()

    def late(connection: multiprocessing.connection.Connection) -> object:
        gate.wait(30)
        return real(connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing.connection.Connection, "recv", late)
        calls = [pool.submit(large_then_killed, 8 << 20) for _ in range(2)]
        time.sleep(0.1)
        for process in _wait_for_ends(pool):
            assert process.exitcode == -signal.SIGKILL
        gate.set()
        for call in calls:
            with pytest.raises(BrokenProcessPool):
                call.result(60)


def _wait_for_ends(pool: WorkerPool) -> list[multiprocessing.Process]:
    end = time.monotonic() + 60
    while (len(pool._processes) < 2 or any(p.is_alive() for p in pool._processes)) and time.monotonic() < end:
        time.sleep(0.05)
    return pool._processes


def test_calls_that_have_not_begun_are_cancelled_on_request() -> None:
    pool = WorkerPool(1, CONTEXT, start)
    first = pool.submit(started_with, 1)
    first.result(60)
    running = pool.submit(time.sleep, 0.5)
    time.sleep(0.2)
    waiting = pool.submit(started_with, 2)
    pool.shutdown(cancel_waiting=True)
    assert running.result(0) is None
    assert waiting.cancelled()
