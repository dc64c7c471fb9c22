"""Local scratch for the shard that is open; what a killed pack left there is cleared by the next."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

PREFIX = "retfound-pack-"
_OWNED = re.compile(rf"{PREFIX}(\d+)-[a-z0-9_]+")


@contextmanager
def scratch_folder() -> Iterator[str]:
    """A folder below $TMPDIR that is gone when the block ends."""
    for name in os.listdir(tempfile.gettempdir()):
        owner = _OWNED.fullmatch(name)
        if owner and not _is_alive(int(owner[1])):
            shutil.rmtree(os.path.join(tempfile.gettempdir(), name), ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as folder:
        yield folder


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
