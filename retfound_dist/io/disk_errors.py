"""Explains errors of a disk: which disk, how much space is free and was needed, and what to do."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
from contextlib import suppress

FULL_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT}
"""Errors that go away when space is freed."""
_MIN_FREE_INODES = 16
"""With fewer free inodes, the disk lacks inodes and not bytes."""
_DISK_ERRNOS = {*FULL_DISK_ERRNOS, errno.EROFS, errno.EIO, errno.ESTALE, errno.EFBIG}
_MACHINE_ERRNOS = {*_DISK_ERRNOS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
FULL_BELOW_BYTES = 1 << 20
"""If less is free and a library could not write, the disk is taken to be full, whatever the library
reports."""


def is_machine_error(error: BaseException | None) -> bool:
    """Whether the machine failed: a full, broken or read-only disk, no memory, too many open files."""
    return isinstance(error, OSError) and error.errno in _MACHINE_ERRNOS


def underlying_disk_error(error: Exception, folder: str) -> OSError | None:
    """Returns the disk error behind an exception; None where the folder's disk is not the reason.

    safetensors gives the errno in its message (`os error 28`). torch gives none. An error that names a
    file elsewhere belongs to another disk.
    """
    if isinstance(error, OSError):
        error_paths = [name for name in (error.filename, error.filename2) if isinstance(name, str)]
        is_in_folder = not error_paths or any(_is_below(name, folder) for name in error_paths)
        return error if is_in_folder and error.errno in _DISK_ERRNOS else None
    if not isinstance(error, RuntimeError) and type(error).__name__ != "SafetensorError":
        return None
    errno_match = re.search(r"os error (\d+)", str(error))
    # torch's writer reports a failed write without an errno. Only the free space shows whether the disk is
    # full.
    is_full = shutil.disk_usage(nearest_existing(folder)).free < FULL_BELOW_BYTES
    error_number = int(errno_match[1]) if errno_match else errno.ENOSPC if is_full else 0
    return OSError(error_number, os.strerror(error_number)) if error_number in _DISK_ERRNOS else None


def explain(error: OSError, path: str, requested_bytes: int = 0, with_free_space: bool = True) -> str:
    """Explains why an operation at a path failed. `requested_bytes`: size of what should be written.

    Without `with_free_space`, the same error always has the same text.
    """
    free = free_space_text(path) + (f", {size(requested_bytes)} needed" if requested_bytes else "")
    amounts = f" ({free})" if with_free_space else ""
    if error.errno == errno.ENOSPC:
        # ENOSPC also means that no inode is left. Deleting large files does not help then.
        inodes_left = free_inodes(path)
        if inodes_left is not None and inodes_left < _MIN_FREE_INODES:
            return f"the disk at {mount_point(path)} cannot hold more files ({inodes_left} inodes are left)"
        return f"No space left on device: the disk at {mount_point(path)} is full{amounts}"
    if error.errno == errno.EDQUOT:
        return f"your quota on the disk at {mount_point(path)} is used up{amounts}"
    if error.errno == errno.EROFS:
        return f"the disk at {mount_point(path)} is read-only"
    if error.errno == errno.EIO:
        return f"the disk at {mount_point(path)} fails (input/output error): check it, or use another disk"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        # The soft limit: `ulimit -n` raises it up to the hard one without an administrator.
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"too many files are open in this process (at most {limit}: raise it with ulimit -n)"
    if error.errno == errno.ENOMEM:
        return "this machine's memory ran out"
    if error.errno == errno.EFBIG:
        return f"the disk at {mount_point(path)} cannot hold a file of this size{amounts}"
    return error.strerror or " ".join(str(error).split()) or type(error).__name__


def space_shortage(folder: str, files: int) -> str:
    """Why a folder's disk cannot hold this many more small files; empty where it can."""
    disk_stats = os.statvfs(nearest_existing(folder))
    needed_bytes = files * resource.getpagesize()
    # File systems without a fixed number of inodes (btrfs, many network ones) report 0 of them.
    # `f_favail` and `f_bavail` do not include what is reserved for root.
    if disk_stats.f_files and disk_stats.f_favail < files:
        shortage = f"{disk_stats.f_favail} inodes are left, {files} needed"
    elif disk_stats.f_bavail * disk_stats.f_frsize < needed_bytes:
        shortage = f"{free_space_text(folder)}, {size(needed_bytes)} needed"
    else:
        return ""
    return f"the disk at {mount_point(folder)} cannot hold more files ({shortage})"


def mount_point(path: str) -> str:
    """The mount point of the disk that holds a path. The path itself need not exist."""
    parent = nearest_existing(path)
    while not os.path.ismount(parent):
        parent = os.path.dirname(parent)
    return parent


def free_space_text(path: str) -> str:
    """`X of Y are free`, for this user."""
    disk_stats = os.statvfs(nearest_existing(path))
    free, total = disk_stats.f_bavail * disk_stats.f_frsize, disk_stats.f_blocks * disk_stats.f_frsize
    return f"{size(free)} of {size(total)} are free"


def free_inodes(path: str) -> int | None:
    """Number of files that the disk can still hold; None where the file system does not count them."""
    with suppress(OSError):
        disk_stats = os.statvfs(nearest_existing(path))
        return disk_stats.f_favail if disk_stats.f_files else None
    return None


def size(count: int) -> str:
    """Bytes in words: `1.5 GB`."""
    # `runtime.humanize.size` does the same, but `io` may import nothing of `runtime`.
    number, units = float(count), ["bytes", "kB", "MB", "GB", "TB", "PB"]
    while number >= 1000 and len(units) > 1:
        number, units = number / 1000, units[1:]
    return f"{number:.3g} {units[0]}"


def _is_below(path: str, folder: str) -> bool:
    # Both are resolved: a scratch folder is often a link, and an error may name either path.
    root = os.path.realpath(folder)
    return os.path.commonpath([root, os.path.realpath(path)]) == root


def nearest_existing(path: str) -> str:
    """The path, or the nearest folder above it that exists."""
    existing_path = os.path.realpath(path)
    while not os.path.exists(existing_path):
        existing_path = os.path.dirname(existing_path)
    return existing_path
