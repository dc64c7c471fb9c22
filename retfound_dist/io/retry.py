"""Sends failed requests again: which errors are worth it, how long to wait, and when to give up.

Waits double from 0.1 s to 10 s. Each is drawn at random below its bound ("full jitter"), so that many
processes that failed together do not try again together.
"""

from __future__ import annotations

import errno
import random
import textwrap
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from retfound_dist.errors import StorageError
from retfound_dist.io import slow_store

T = TypeVar("T")
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 10.0
# Errno of refusals, as s3fs 2026.9 translates S3's codes: EINVAL for 400, 412 and 416, EREMCHG for a
# redirect to another region. SlowDown and 503 are EBUSY, which is transient.
_PERMANENT_ERRNOS = {errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENAMETOOLONG, errno.EREMCHG, errno.ENOSPC}
_PERMANENT_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
# By name: comparing classes would import botocore and aiohttp for a run on a local disk.
_TRANSIENT_NAMES = {
    "HTTPClientError",  # botocore: timeouts, closed connections
    "ConnectionError",  # botocore: no connection
    "ClientError",  # aiohttp, whose bodies break off; botocore's are turned into OSError by s3fs
    "IncompleteReadError",
    "ResponseParserError",
    "FSTimeoutError",
}


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later. A refusal (403, 404, 400) will not; anything else may."""
    if isinstance(error, OSError):
        return not isinstance(error, _PERMANENT_ERRORS) and error.errno not in _PERMANENT_ERRNOS
    return bool(_TRANSIENT_NAMES & {kind.__name__ for kind in type(error).__mro__})


def sleep_before_retry(failures: int, longest_s: float = LONGEST_WAIT_S) -> None:
    """Sleep after `failures` retries that failed, at most `longest_s` seconds."""
    # The exponent is bounded, because 2 ** 2000 overflows a float; 2 ** 20 is far above every bound.
    time.sleep(random.uniform(0, min(longest_s, FIRST_WAIT_S * 2 ** min(failures, 20))))


@dataclass
class Patience:
    """Waits between attempts until `seconds` have passed without a success, which `slow_store` announces."""

    url: str
    seconds: float
    _failing_since: float | None = None
    _failures: int = 0
    _announcement: weakref.finalize[[int], Patience] | None = None

    def succeeded(self) -> None:
        """Note a success: the time without one starts again."""
        self._failing_since, self._failures = None, 0
        self._end_announcement()

    def _end_announcement(self) -> None:
        if self._announcement:
            self._announcement()
            self._announcement = None

    def wait(self, error: BaseException) -> bool:
        """Sleep before the next attempt. Returns False, without sleeping, when the time is over."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        failing = now - self._failing_since
        if failing >= self.seconds:
            self._end_announcement()
            return False
        if self._announcement is None:
            reason = textwrap.shorten(str(error), 300, placeholder=" ...") or type(error).__name__
            # An exception elsewhere may drop this object in the middle. The finalizer then ends the
            # announcement, which would otherwise be printed until the process ends.
            key = slow_store.register_failing(self.url, self._failing_since, self.seconds, reason)
            self._announcement = weakref.finalize(self, slow_store.end_wait, key)
        # A hundredth longer than what is left: the next call then finds the time over, and does not try
        # again.
        sleep_before_retry(self._failures, min(LONGEST_WAIT_S, self.seconds - failing + 0.01))
        self._failures += 1
        return True


def call_with_retries(
    function: Callable[[], T],
    patience: Patience,
    is_permanent: Callable[[Exception], bool] = lambda error: False,
) -> T:
    """Call a function until it raises no StorageError or OSError.

    By default every such error is worth another attempt: a full disk may be emptied meanwhile. A permanent
    error is raised at once. When the time is over, StorageError says how long it was tried.
    """
    while True:
        try:
            with slow_store.time_limit(patience.url, patience.seconds):
                return function()
        except (StorageError, OSError) as error:
            if is_permanent(error):
                raise
            if not patience.wait(error):
                raise StorageError(f"{error} (tried for {patience.seconds:.0f} s)") from error
