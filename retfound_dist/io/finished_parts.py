"""Files beside a command's target that hold its finished parts, so that an interrupted command continues.

OUT.parts/0123456789abcdef0123456789abcdef.npz
"""

from __future__ import annotations

import re

from retfound_dist.io import storage

_NAME = re.compile(r"[0-9a-f]{32}\.npz")


def parts_url(out: str) -> str:
    """The folder of the parts of a target."""
    return f"{out}.parts"


def delete_parts(out: str) -> None:
    """Delete the parts of a target, and their folder where it is empty."""
    folder = parts_url(out)
    for name in storage.list_names(folder):
        # Files with other names stay: a user may have put them there.
        if _NAME.fullmatch(name):
            storage.delete(storage.join(folder, name))
    if not storage.list_names(folder):
        storage.delete(folder)
