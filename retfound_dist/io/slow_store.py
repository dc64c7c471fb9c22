"""Announces within ten seconds that a store does not answer, and every ten seconds again.

`waiting` surrounds each request to a store, `answered` notes each answer. A thread checks once a second. Code
that retries with patience calls `failing`; the line then says how long it will go on, and until when. Of the
processes of a rank one prints, and of the ranks of a node the first.
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
SAY_AFTER, SAY_EVERY = 7.0, 10.0
"""Seconds until the first line, and from one line to the next."""
PLAIN_S = 120.0
"""Seconds until a store that does not answer is given up, where no config says how long."""
WAITING = "waiting for"
"""Begins every announcement."""
_LOOK_EVERY = 1.0
_ONE_TRY = 10.0
"""Seconds that one request may take. With less time left none is begun."""


@dataclass
class _Wait:
    """A request to a store that is not answered yet."""

    what: str
    since: float
    until: float
    why: str = ""
    quiet: bool = False
    """Not announced itself: it only limits the time of the others."""


_lock = threading.Lock()
_waits: dict[int, _Wait] = {}
_last_answer = _last_said = 0.0
_trouble = ""
_silent = False
_thread: threading.Thread | None = None
_shared = ""
"""A file by which the processes of a rank take turns; empty: this process is alone."""


@contextmanager
def waiting(request: str, seconds: float = 0.0) -> Iterator[None]:
    """Registers a request of at most `seconds` (0: PLAIN_S). `request`: the URL and the purpose."""
    with _registered(request, seconds or PLAIN_S):
        yield


@contextmanager
def time_limit(request: str, seconds: float) -> Iterator[None]:
    """Limits all requests in the block to this time together. The block itself is not announced."""
    with _registered(request, seconds, quiet=True):
        yield


@contextmanager
def _registered(request: str, seconds: float, quiet: bool = False) -> Iterator[None]:
    # Nothing is announced for a disk: its calls return or fail, and nobody can ask it again by patience.
    if urls.is_local(request):
        yield
        return
    now = time.monotonic()
    key = _register(_Wait(request, now, now + seconds, quiet=quiet))
    try:
        yield
    finally:
        end(key)


def failing(request: str, since: float, seconds: float, why: str) -> int:
    """Registers a request that fails since then (monotonic) and is retried. Returns a key for `end`."""
    return _register(_Wait(request, since, since + seconds, why))


def end(key: int) -> None:
    """The request was answered, or is given up."""
    with _lock:
        _waits.pop(key, None)


def answered(why: str = "") -> None:
    """Notes an answer. `why`: the store could not do what was asked, or could not be reached."""
    global _last_answer, _trouble
    _trouble = why
    if not why:
        _last_answer = time.monotonic()


def out_of_patience() -> bool:
    """Whether the oldest request has used up its time, without any answer meanwhile."""
    with _lock:
        waits = list(_waits.values())
    first_wait = _first_wait(waits)
    if first_wait is None:
        return False
    seconds = _time_limit(waits)
    silent_since = max(first_wait.since, _last_answer)
    # A request that is begun just before the end would overrun it by its own time-out.
    return time.monotonic() > silent_since + seconds - min(_ONE_TRY, seconds / 4)


def be_silent() -> None:
    """Print nothing from now on: this process is about to end, and has printed its last line."""
    global _silent
    _silent = True


def _first_wait(waits: Sequence[_Wait]) -> _Wait | None:
    """The oldest request. Time counts only while there is one."""
    return min((wait for wait in waits if not wait.quiet), key=_start_time, default=None)


def _silent_since(wait: _Wait) -> float:
    """Since when there is no answer. A request that fails counts from its first failure."""
    return wait.since if wait.why else max(wait.since, _last_answer)


def _time_limit(waits: Sequence[_Wait]) -> float:
    """How long all requests may stay without an answer: the limit of the one that began first."""
    first = min(waits, key=_start_time)
    return first.until - first.since


def _start_time(wait: _Wait) -> float:
    return wait.since


def share_announcements(path: str) -> None:
    """Take turns in printing with all processes that share this file."""
    global _shared
    _shared = path


def _register(wait: _Wait) -> int:
    global _thread
    with _lock:
        key = id(wait)
        _waits[key] = wait
        # A thread, because the main one is inside the very request that does not come back.
        if _thread is None or not _thread.is_alive():  # a fork leaves the thread behind
            _thread = threading.Thread(target=_watch_waits, name="waiting", daemon=True)
            _thread.start()
    return key


def _watch_waits() -> None:
    pause = threading.Event()
    while True:
        pause.wait(_LOOK_EVERY)
        with _lock:
            waits = list(_waits.values())
        if waits and not _silent:
            line = due_line(waits, time.monotonic(), time.time())
            if line and may_print(os.environ) and _take_turn():
                print(line, file=sys.stderr, flush=True)


def due_line(waits: list[_Wait], now: float, clock: float) -> str:
    """The line to print now, or an empty one. The oldest request stands for all."""
    global _last_said
    first_wait = _first_wait(waits)
    if first_wait is None:
        return ""
    silent = now - _silent_since(first_wait)
    if silent < SAY_AFTER or now - _last_said < SAY_EVERY - _LOOK_EVERY / 2:
        return ""
    _last_said = now
    why = first_wait.why or _trouble
    left = max(0.0, _silent_since(first_wait) + _time_limit(waits) - now)
    until = time.strftime("%H:%M:%S", time.localtime(clock + left))
    # A full disk answers at once: only where no reason is known is there no answer.
    state = f"trying again for {silent:.0f} s ({why})" if why else f"without an answer for {silent:.0f} s"
    limit = f"giving up in {left:.0f} s, at {until}, at the latest"
    return f"retfound: {WAITING} {first_wait.what}, {state}; {limit}"


def may_print(env: Mapping[str, str]) -> bool:
    """Whether this is the first rank of its node, or no rank at all."""
    return env.get("LOCAL_RANK", env.get("SLURM_LOCALID", "")).strip() in ("", "0")


def _take_turn() -> bool:
    """Whether no other process that shares the file has printed just now."""
    if not _shared:
        return True
    with suppress(OSError), open(_shared, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # The file's time is when somebody last spoke. The lock only keeps two from speaking at the same
        # moment.
        file_stats = os.fstat(file.fileno())
        if file_stats.st_size and time.time() - file_stats.st_mtime < SAY_EVERY - _LOOK_EVERY:
            return False
        file.truncate(0)
        file.write(b"said")
    return True
