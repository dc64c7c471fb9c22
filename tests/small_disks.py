"""Disks that are full soon, for tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def disk_at(folder: Path, options: str = "") -> Iterator[Path]:
    """A disk in memory, mounted at a folder that is made; `options` are tmpfs's, such as `size=64k`."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a disk")
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", *(["-o", options] if options else []), "tmpfs", folder], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
