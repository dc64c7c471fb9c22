"""Reports within ten seconds that a store does not answer, and then every ten seconds.

`waiting` surrounds each request to a store, and `record_answer` records each answer. A thread checks once a
second. Code that retries calls `register_failing`. The line then says how long it will retry, and until when.
Only one process of a rank prints, and only the first rank of a node.
"""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from retfound_dist.io import urls

# Seven, not ten: the thread looks once a second, and docs/s3.md promises the first word within ten.
ANNOUNCE_AFTER_S, ANNOUNCE_EVERY_S = 7.0, 10.0
"""Seconds until the first line, and from one line to the next."""
DEFAULT_LIMIT_S = 120.0
"""Seconds until a store that does not answer is given up, where no config says how long."""
WAITING = "waiting for"
"""Begins every announcement."""
_CHECK_EVERY_S = 1.0
_REQUEST_LIMIT_S = 10.0
"""Seconds that one request may take. With less time left none is begun."""


@dataclass
class _Wait:
    """A request to a store that is not answered yet."""

    request: str
    since: float
    until: float
    reason: str = ""
    quiet: bool = False
    """Whether it is not announced itself and only limits the time of the others."""


_lock = threading.Lock()
_waits: dict[int, _Wait] = {}
_last_answer = _last_announced = 0.0
_last_failure = ""
_is_muted = False
_thread: threading.Thread | None = None
_turn_file = ""
"""A file by which the processes of a rank decide which one prints; empty: this process prints alone."""


@contextmanager
def waiting(request: str, seconds: float = 0.0) -> Iterator[None]:
    """Registers a request of at most `seconds` (0: PLAIN_S). `request`: the URL and the purpose."""
    with _announced(request, seconds or DEFAULT_LIMIT_S):
        yield


@contextmanager
def time_limit(request: str, seconds: float) -> Iterator[None]:
    """Limits the total time of all requests in the block. The block itself is not announced."""
    with _announced(request, seconds, quiet=True):
        yield


@contextmanager
def _announced(request: str, seconds: float, quiet: bool = False) -> Iterator[None]:
    """While the block runs, the thread that reports slow requests knows of this one."""
    # Nothing is announced for a disk: its calls return or fail, and a retry does not help.
    if urls.is_local(request):
        yield
        return
    now = time.monotonic()
    key = _start_wait(_Wait(request, now, now + seconds, quiet=quiet))
    try:
        yield
    finally:
        end_wait(key)


def register_failing(request: str, since: float, seconds: float, reason: str) -> int:
    """Registers a request that has failed since then (monotonic) and is retried. Returns a key for
    `end_wait`."""
    return _start_wait(_Wait(request, since, since + seconds, reason))


def end_wait(key: int) -> None:
    """Ends a wait: the request was answered or given up."""
    with _lock:
        _waits.pop(key, None)


def record_answer(failure: str = "") -> None:
    """Records an answer. `failure`: why the store could not be reached or could not do what was requested."""
    global _last_answer, _last_failure
    _last_failure = failure
    if not failure:
        _last_answer = time.monotonic()


def is_time_up() -> bool:
    """Whether the oldest request has used up its time, without any answer meanwhile."""
    with _lock:
        waits = list(_waits.values())
    first_wait = _first_wait(waits)
    if first_wait is None:
        return False
    seconds = _time_limit(waits)
    silent_since = max(first_wait.since, _last_answer)
    # A request that starts just before the end would exceed it by its own time-out.
    return time.monotonic() > silent_since + seconds - min(_REQUEST_LIMIT_S, seconds / 4)


def mute() -> None:
    """Print nothing more: this process is about to end, and has printed its last line."""
    global _is_muted
    _is_muted = True


def _first_wait(waits: Sequence[_Wait]) -> _Wait | None:
    """The oldest request that is announced. Time counts only while there is one."""
    return min((wait for wait in waits if not wait.quiet), key=_start_time, default=None)


def _silent_since(wait: _Wait) -> float:
    """The time since which there is no answer. A failing request counts from its first failure."""
    return wait.since if wait.reason else max(wait.since, _last_answer)


def _time_limit(waits: Sequence[_Wait]) -> float:
    """Seconds that requests may stay without an answer: the limit of the one that began first."""
    first = min(waits, key=_start_time)
    return first.until - first.since


def _start_time(wait: _Wait) -> float:
    return wait.since


def share_announcements(path: str) -> None:
    """Share the announcements with all processes that use this file, so that only one of them prints."""
    global _turn_file
    _turn_file = path


def _start_wait(wait: _Wait) -> int:
    """Add a request to those that the thread watches. Returns its key for `end`."""
    global _thread
    with _lock:
        key = id(wait)
        _waits[key] = wait
        # A thread, because the main one is blocked in the request that does not return.
        if _thread is None or not _thread.is_alive():  # a fork leaves the thread behind
            _thread = threading.Thread(target=_watch_waits, name="waiting", daemon=True)
            _thread.start()
    return key


def _watch_waits() -> None:
    pause = threading.Event()
    while True:
        pause.wait(_CHECK_EVERY_S)
        with _lock:
            waits = list(_waits.values())
        if waits and not _is_muted:
            line = due_line(waits, time.monotonic(), time.time())
            if line and may_print(os.environ) and _take_turn():
                print(line, file=sys.stderr, flush=True)


def due_line(waits: list[_Wait], now: float, wall_time: float) -> str:
    """The line to print now, or an empty one. It is about the oldest request."""
    global _last_announced
    first_wait = _first_wait(waits)
    if first_wait is None:
        return ""
    silent_s = now - _silent_since(first_wait)
    if silent_s < ANNOUNCE_AFTER_S or now - _last_announced < ANNOUNCE_EVERY_S - _CHECK_EVERY_S / 2:
        return ""
    _last_announced = now
    reason = first_wait.reason or _last_failure
    seconds_left = max(0.0, _silent_since(first_wait) + _time_limit(waits) - now)
    until = time.strftime("%H:%M:%S", time.localtime(wall_time + seconds_left))
    # A full disk answers at once. Only without a known reason is there no answer.
    state = (
        f"trying again for {silent_s:.0f} s ({reason})"
        if reason
        else f"without an answer for {silent_s:.0f} s"
    )
    return (
        f"retfound: {WAITING} {first_wait.request}, {state}; "
        f"giving up in {seconds_left:.0f} s, at {until}, at the latest"
    )


def may_print(env: Mapping[str, str]) -> bool:
    """Whether this process is the first rank of its node, or not a rank."""
    return env.get("LOCAL_RANK", env.get("SLURM_LOCALID", "")).strip() in ("", "0")


def _take_turn() -> bool:
    """Whether no other process that shares the file has printed just now."""
    if not _turn_file:
        return True
    with suppress(OSError), open(_turn_file, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # The file's time is that of the last line. The lock only prevents two lines at the same moment.
        file_stats = os.fstat(file.fileno())
        if file_stats.st_size and time.time() - file_stats.st_mtime < ANNOUNCE_EVERY_S - _CHECK_EVERY_S:
            return False
        file.truncate(0)
        file.write(b"printed")
    return True
