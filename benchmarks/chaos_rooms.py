"""Small disks of `benchmarks.chaos`, which can be full: file systems in memory that nobody else sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

USUAL = 1 << 30
"""Bytes of a disk that is not full."""
LEAST = 4096
INSIDE = "--inside"
"""Last word of a command line in mounts of its own."""


def in_own_mounts(module: str) -> None:
    """Start this program again where what is mounted ends with it; root may, others in a user namespace."""
    if sys.argv[-1:] == [INSIDE]:
        sys.argv.pop()
        return
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    words = ["unshare", *user, "--mount", "--propagation", "private", sys.executable, "-m", module]
    os.execvp(words[0], [*words, *sys.argv[1:], INSIDE])


class Rooms:
    """Disks by name, each a folder: `tmp` for TMPDIR, `out` for results, `cache`, and `shm`, /dev/shm."""

    def __init__(self, folder: Path) -> None:
        self.folders = {name: folder / name for name in ("tmp", "out", "cache")} | {"shm": Path("/dev/shm")}
        for path in self.folders.values():
            path.mkdir(exist_ok=True)
            _mount("-t", "tmpfs", "-o", f"size={USUAL},mode=1777", "tmpfs", str(path))

    def squeeze(self, name: str, left: int) -> None:
        """So many bytes are left, no more."""
        held = os.statvfs(self.folders[name])
        used = (held.f_blocks - held.f_bfree) * held.f_frsize
        _mount("-o", f"remount,size={used + max(left, LEAST)}", str(self.folders[name]))

    def widen(self) -> None:
        """There is room again."""
        for path in self.folders.values():
            _mount("-o", f"remount,size={USUAL}", str(path))

    def left(self) -> dict[str, list[str]]:
        """What a job that has ended has left in memory and in TMPDIR."""
        return {name: sorted(path.name for path in self.folders[name].iterdir()) for name in ("tmp", "shm")}

    def clear(self, but: str = "") -> None:
        """Empty them all, but for what bears a name."""
        for folder in self.folders.values():
            for path in folder.iterdir():
                if path.name == but:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    with suppress(OSError):
                        path.unlink()

    def close(self) -> None:
        """Unmount them."""
        for path in self.folders.values():
            _mount(str(path), program="umount")


def _mount(*words: str, program: str = "mount") -> None:
    subprocess.run([program, *words], check=True)
