"""What this process waits for at a store is said within ten seconds, and every ten seconds again.

`waiting` surrounds each thing that is asked of a store, `answered` notes each answer. A thread looks once a
second. Whoever asks again by patience says so by `failing`: then the line tells how long yet, and until when.
Of a rank's processes one speaks, and of a node's ranks the first.
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

SAY_AFTER, SAY_EVERY = 7.0, 10.0
"""Seconds until the first word, and from one to the next."""
PLAIN_S = 120.0
"""Seconds for which a store that does not answer is asked, where no config says how long."""
_LOOK = 1.0
_ONE_TRY = 10.0
"""Seconds that a request may take until it has failed: with less left none is begun."""


@dataclass
class _Wait:
    """Something that was asked of a store and has not come."""

    what: str
    since: float
    until: float
    why: str = ""
    quiet: bool = False
    """Only says how long the others may take."""


_lock = threading.Lock()
_waits: dict[int, _Wait] = {}
_last_answer = _last_said = 0.0
_trouble = ""
_silent = False
_thread: threading.Thread | None = None
_shared = ""
"""A file that the processes of a rank take turns by; empty: this process is alone."""


@contextmanager
def waiting(what: str, seconds: float = 0.0) -> Iterator[None]:
    """Something is asked of a store, for `seconds` at most (0: PLAIN_S); `what`: the URL, and what for."""
    with _registered(what, seconds or PLAIN_S):
        yield


@contextmanager
def limited(what: str, seconds: float) -> Iterator[None]:
    """Whatever is asked of a store meanwhile may take so long; nothing is said of what is done between."""
    with _registered(what, seconds, quiet=True):
        yield


@contextmanager
def _registered(what: str, seconds: float, quiet: bool = False) -> Iterator[None]:
    if urls.is_local(what):
        yield
        return
    now = time.monotonic()
    key = _begin(_Wait(what, now, now + seconds, quiet=quiet))
    try:
        yield
    finally:
        end(key)


def failing(what: str, since: float, seconds: float, why: str) -> int:
    """It has failed since then (monotonic), and is asked again for so long; gives a key for `end`."""
    return _begin(_Wait(what, since, since + seconds, why))


def end(key: int) -> None:
    """It has come, or is given up."""
    with _lock:
        _waits.pop(key, None)


def answered(why: str = "") -> None:
    """A store has answered this process; `why`: it could not do what was asked, or could not be reached."""
    global _last_answer, _trouble
    _trouble = why
    if not why:
        _last_answer = time.monotonic()


def out_of_patience() -> bool:
    """Whether what has been waited for longest has had its time, without any answer meanwhile."""
    with _lock:
        waits = list(_waits.values())
    asked = _asked_first(waits)
    if asked is None:
        return False
    seconds = _seconds(waits)
    silent_since = max(asked.since, _last_answer)
    return time.monotonic() > silent_since + seconds - min(_ONE_TRY, seconds / 4)


def be_silent() -> None:
    """Say no more: this process has had its last word, and will not wait so long."""
    global _silent
    _silent = True


def _asked_first(waits: Sequence[_Wait]) -> _Wait | None:
    """What a store was asked for before the rest; only while something is asked does time count."""
    return min((wait for wait in waits if not wait.quiet), key=_since, default=None)


def _begun(wait: _Wait) -> float:
    """Since when there is no answer: what has failed counts from its first failure."""
    return wait.since if wait.why else max(wait.since, _last_answer)


def _seconds(waits: Sequence[_Wait]) -> float:
    """How long all may take without an answer: the one that began first says so."""
    first = min(waits, key=_since)
    return first.until - first.since


def _since(wait: _Wait) -> float:
    return wait.since


def share(path: str) -> None:
    """Take turns in speaking with all processes that were given this file."""
    global _shared
    _shared = path


def _begin(wait: _Wait) -> int:
    global _thread
    with _lock:
        key = id(wait)
        _waits[key] = wait
        if _thread is None or not _thread.is_alive():  # a fork leaves the thread behind
            _thread = threading.Thread(target=_look, name="waiting", daemon=True)
            _thread.start()
    return key


def _look() -> None:
    pause = threading.Event()
    while True:
        pause.wait(_LOOK)
        with _lock:
            waits = list(_waits.values())
        if waits and not _silent:
            line = due(waits, time.monotonic(), time.time())
            if line and may_speak(os.environ) and _take_turn():
                print(line, file=sys.stderr, flush=True)


def due(waits: list[_Wait], now: float, clock: float) -> str:
    """The line that is to be said now, or nothing. The one that began first speaks for all."""
    global _last_said
    oldest = _asked_first(waits)
    if oldest is None:
        return ""
    silent = now - _begun(oldest)
    if silent < SAY_AFTER or now - _last_said < SAY_EVERY - _LOOK / 2:
        return ""
    _last_said = now
    why = oldest.why or _trouble
    left = max(0.0, _begun(oldest) + _seconds(waits) - now)
    until = time.strftime("%H:%M:%S", time.localtime(clock + left))
    return (
        f"retfound: waiting for {oldest.what}, without an answer for {silent:.0f} s"
        f"{f' ({why})' if why else ''}; giving up in {left:.0f} s, at {until}, at the latest"
    )


def may_speak(env: Mapping[str, str]) -> bool:
    """Whether this is the first rank of its node, or no rank at all."""
    return env.get("LOCAL_RANK", env.get("SLURM_LOCALID", "")).strip() in ("", "0")


def _take_turn() -> bool:
    """Whether no other process that shares the file has spoken just now."""
    if not _shared:
        return True
    with suppress(OSError), open(_shared, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        held = os.fstat(file.fileno())
        if held.st_size and time.time() - held.st_mtime < SAY_EVERY - _LOOK:
            return False
        file.truncate(0)
        file.write(b"said")
    return True
