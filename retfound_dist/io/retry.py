"""Decides which errors of a store are worth a retry, and how long to go on.

Waits double from 0.1 s to 10 s. Each is drawn at random below its bound ("full jitter"), so that many
processes that failed together do not try again together.
"""

from __future__ import annotations

import errno
import random
import time
import weakref
from dataclasses import dataclass

from retfound_dist.io import slow_store

FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0  # seconds
# Errno of refusals, as s3fs 2026.9 translates S3's codes: EINVAL for 400, 412 and 416, EREMCHG for a
# redirect to another region. SlowDown and 503 are EBUSY, which passes.
_LASTING = {errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENAMETOOLONG, errno.EREMCHG, errno.ENOSPC}
_LASTING_KINDS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
# By name: comparing classes would import botocore and aiohttp for a run on a local disk.
_PASSING_NAMES = {
    "HTTPClientError",  # botocore: timeouts, closed connections
    "ConnectionError",  # botocore: no connection
    "ClientError",  # aiohttp, whose bodies break off; botocore's are turned into OSError by s3fs
    "IncompleteReadError",
    "ResponseParserError",
    "FSTimeoutError",
}


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed later. A refusal (403, 404, 400) will not; anything else may."""
    if isinstance(error, OSError):
        return not isinstance(error, _LASTING_KINDS) and error.errno not in _LASTING
    return bool(_PASSING_NAMES & {kind.__name__ for kind in type(error).__mro__})


def pause(tries: int, longest: float = LONGEST_WAIT) -> None:
    """Sleep before try number `tries` + 2."""
    # The exponent is bounded, because 2 ** 2000 overflows a float; 2 ** 20 is far above every bound.
    time.sleep(random.uniform(0, min(longest, FIRST_WAIT * 2 ** min(tries, 20))))


@dataclass
class Patience:
    """Waits between tries until `seconds` have passed without a success, which `slow_store` announces."""

    url: str
    seconds: float
    _failing_since: float | None = None
    _tries: int = 0
    _announcement: weakref.finalize[[int], Patience] | None = None

    def succeeded(self) -> None:
        """Note a success: the time without one starts again."""
        self._failing_since, self._tries = None, 0
        self._end_announcement()

    def _end_announcement(self) -> None:
        if self._announcement:
            self._announcement()
            self._announcement = None

    def wait(self, error: BaseException) -> bool:
        """Sleep before the next try. Returns False, without sleeping, when the time is over."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        failing = now - self._failing_since
        if failing >= self.seconds:
            self._end_announcement()
            return False
        if self._announcement is None:
            why = " ".join(str(error).split())[:200] or type(error).__name__
            # An exception elsewhere may drop this object in the middle. The finalizer then ends the
            # announcement, which would otherwise be printed until the process ends.
            key = slow_store.failing(self.url, self._failing_since, self.seconds, why)
            self._announcement = weakref.finalize(self, slow_store.end, key)
        # A hundredth longer than what is left: the next call then finds the time over, and does not try
        # again.
        pause(self._tries, min(LONGEST_WAIT, self.seconds - failing + 0.01))
        self._tries += 1
        return True
