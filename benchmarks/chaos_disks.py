"""Small disks of `benchmarks.chaos` that can be filled: private file systems in memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

DISK_BYTES = 1 << 30
"""Bytes of a disk that has not been shrunk."""
SMALLEST_LEFT = 4096
INSIDE = "--inside"
"""Last argument of a program that runs with its own mounts."""


def in_own_mounts(module: str) -> None:
    """Start this program again with its own mounts, which end with it; without root, in a user namespace."""
    if sys.argv[-1:] == [INSIDE]:
        sys.argv.pop()
        return
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    arguments = ["unshare", *user, "--mount", "--propagation", "private", sys.executable, "-m", module]
    os.execvp(arguments[0], [*arguments, *sys.argv[1:], INSIDE])


class Disks:
    """Disks by name, each a folder: `tmp` for TMPDIR, `out` for results, `cache`, and `shm`, /dev/shm."""

    def __init__(self, folder: Path) -> None:
        self.folders = {name: folder / name for name in ("tmp", "out", "cache")} | {"shm": Path("/dev/shm")}
        for path in self.folders.values():
            path.mkdir(exist_ok=True)
            _mount("-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=1777", "tmpfs", str(path))

    def shrink(self, name: str, bytes_left: int) -> None:
        """Shrink a disk until only so many bytes are free."""
        stats = os.statvfs(self.folders[name])
        used = (stats.f_blocks - stats.f_bfree) * stats.f_frsize
        _mount("-o", f"remount,size={used + max(bytes_left, SMALLEST_LEFT)}", str(self.folders[name]))

    def restore_size(self) -> None:
        """Give all disks their size back."""
        for path in self.folders.values():
            _mount("-o", f"remount,size={DISK_BYTES}", str(path))

    def left_files(self) -> dict[str, list[str]]:
        """Files that an ended job left in TMPDIR and in shared memory."""
        return {name: sorted(path.name for path in self.folders[name].iterdir()) for name in ("tmp", "shm")}

    def clear(self, but: str = "") -> None:
        """Delete everything on all disks, except the entry of this name."""
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


def _mount(*arguments: str, program: str = "mount") -> None:
    subprocess.run([program, *arguments], check=True)
