"""Files beside a command's target that hold its finished parts, so that an interrupted command continues.

OUT.parts/0123456789abcdef0123456789abcdef.npz
"""

from __future__ import annotations

import os
import re

from retfound_dist.io import storage
from retfound_dist.io.stores import local_disk

_NAME = re.compile(r"[0-9a-f]{32}\.npz")


def parts_url(out: str) -> str:
    """The folder of the parts of a target."""
    return f"{out}.parts"


def delete_parts(out: str, began: float) -> None:
    """Delete the parts of a target, and their folder where it is empty.

    `began`: the time (`time.time()`) at which this command began. What a command that was killed before left
    half written is deleted too. Younger unfinished files stay, because another process may be writing them.
    """
    folder = parts_url(out)
    if storage.is_local(out):
        path = storage.local_path(out)
        local_disk.delete_old_drafts(os.path.dirname(path), began, re.escape(os.path.basename(path)))
        local_disk.delete_old_drafts(storage.local_path(folder), began, _NAME.pattern)
    for name in storage.list_names(folder):
        # Files with other names stay: a user may have put them there.
        if _NAME.fullmatch(name):
            storage.delete(storage.join(folder, name))
    if not storage.list_names(folder):
        storage.delete(folder)
