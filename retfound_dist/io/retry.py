"""Which troubles of a store pass, and how long to go on asking.

Waits grow twofold from a tenth of a second to ten, each drawn at random below its bound ("full
jitter"), so that many processes that failed together do not return together.
"""

from __future__ import annotations

import errno
import random
import time
import weakref
from dataclasses import dataclass

from retfound_dist.io import slow_store

FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0  # seconds
_LASTING = {errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENAMETOOLONG, errno.EREMCHG, errno.ENOSPC}
_LASTING_KINDS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_PASSING_NAMES = {
    "HTTPClientError",  # botocore: timeouts, closed connections
    "ConnectionError",  # botocore: no connection
    "ClientError",  # aiohttp, whose bodies break off; botocore's are turned into OSError by s3fs
    "IncompleteReadError",
    "ResponseParserError",
    "FSTimeoutError",
}


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed later: a refusal (403, 404, 400) will not, all else may."""
    if isinstance(error, OSError):
        return not isinstance(error, _LASTING_KINDS) and error.errno not in _LASTING
    return bool(_PASSING_NAMES & {kind.__name__ for kind in type(error).__mro__})


def pause(tries: int, longest: float = LONGEST_WAIT) -> None:
    """Sleep before try number `tries` + 2."""
    time.sleep(random.uniform(0, min(longest, FIRST_WAIT * 2 ** min(tries, 20))))


@dataclass
class Patience:
    """Waits between tries until `seconds` have gone by without any success; `waiting` says so meanwhile."""

    url: str
    seconds: float
    _failing_since: float | None = None
    _tries: int = 0
    _said: weakref.finalize[[int], Patience] | None = None

    def succeeded(self) -> None:
        """Begin anew: something arrived."""
        self._failing_since, self._tries = None, 0
        self._be_silent()

    def _be_silent(self) -> None:
        if self._said:
            self._said()
            self._said = None

    def wait(self, error: BaseException) -> bool:
        """Sleep before the next try; False when it has been long enough."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        failing = now - self._failing_since
        if failing >= self.seconds:
            self._be_silent()
            return False
        if self._said is None:
            why = " ".join(str(error).split())[:200] or type(error).__name__
            key = slow_store.failing(self.url, self._failing_since, self.seconds, why)
            self._said = weakref.finalize(self, slow_store.end, key)
        pause(self._tries, min(LONGEST_WAIT, self.seconds - failing + 0.01))
        self._tries += 1
        return True
