"""Explains errors of a disk: which disk it is, how full it is, how much was asked for, and what to do."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
from contextlib import suppress

FULL = {errno.ENOSPC, errno.EDQUOT}
"""No room, for now."""
_FEW_FILES = 16
"""With fewer inodes left, a lack of inodes is the reason and not a lack of bytes."""
_DISK = {*FULL, errno.EROFS, errno.EIO, errno.ESTALE, errno.EFBIG}
_MACHINE = {*_DISK, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
FULL_BELOW = 1 << 20
"""Bytes. Where less is free and a library could not write, the disk was full, whatever the library says."""


def is_disk_trouble(error: BaseException | None) -> bool:
    """Whether this machine failed: a full, broken or read-only disk, no memory, no files."""
    return isinstance(error, OSError) and error.errno in _MACHINE


def trouble_behind(error: Exception, folder: str) -> OSError | None:
    """Returns the disk error behind an exception; None where the folder's disk is not the reason.

    safetensors gives the errno in words (`os error 28`). torch says only that it could not write. An error
    that names a file elsewhere belongs to another disk.
    """
    if isinstance(error, OSError):
        named = [name for name in (error.filename, error.filename2) if isinstance(name, str)]
        here = not named or any(_is_below(name, folder) for name in named)
        return error if here and error.errno in _DISK else None
    if not isinstance(error, RuntimeError) and type(error).__name__ != "SafetensorError":
        return None
    known = re.search(r"os error (\d+)", str(error))
    # torch's writer says only that it could not write, without an errno. Free space is the evidence left.
    full = shutil.disk_usage(_existing(folder)).free < FULL_BELOW
    number = int(known[1]) if known else errno.ENOSPC if full else 0
    return OSError(number, os.strerror(number)) if number in _DISK else None


def explain(error: OSError, path: str, wanted: int = 0) -> str:
    """Explains in words why an operation at a path failed. `wanted`: bytes that were asked for."""
    asked = f", {size(wanted)} asked for" if wanted else ""
    if error.errno == errno.ENOSPC:
        # ENOSPC also means that no inode is left. Deleting large files does not help then.
        left = free_files(path)
        if left is not None and left < _FEW_FILES:
            return f"the disk at {mount_of(path)} has no room for more files ({left} inodes are left)"
        return f"No space left on device: the disk at {mount_of(path)} is full ({room(path)}{asked})"
    if error.errno == errno.EDQUOT:
        return f"your quota on the disk at {mount_of(path)} is used up ({room(path)}{asked})"
    if error.errno == errno.EROFS:
        return f"the disk at {mount_of(path)} is read-only"
    if error.errno == errno.EIO:
        return f"the disk at {mount_of(path)} fails (input/output error): look at it, or use another"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        # The soft limit: `ulimit -n` raises it up to the hard one without an administrator.
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"too many files are open in this process (at most {limit}: raise it with ulimit -n)"
    if error.errno == errno.ENOMEM:
        return "this machine's memory ran out"
    if error.errno == errno.EFBIG:
        return f"the disk at {mount_of(path)} takes no file of this size{asked}"
    return error.strerror or " ".join(str(error).split()) or type(error).__name__


def check_room(folder: str, files: int) -> None:
    """Raises OSError (no space) where a folder's disk has no room for this many more small files."""
    disk_stats = os.statvfs(_existing(folder))
    # File systems without a fixed number of inodes (btrfs, many network ones) report 0 of them.
    # `f_favail` and `f_bavail` leave out what is reserved for root.
    few = disk_stats.f_files and disk_stats.f_favail < files
    if few or disk_stats.f_bavail * disk_stats.f_frsize < files * resource.getpagesize():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder)


def mount_of(path: str) -> str:
    """The mount point of the disk that holds a path. The path itself need not exist."""
    place = _existing(path)
    while not os.path.ismount(place):
        place = os.path.dirname(place)
    return place


def room(path: str) -> str:
    """`X of Y are free`, for this user."""
    disk_stats = os.statvfs(_existing(path))
    free, total = disk_stats.f_bavail * disk_stats.f_frsize, disk_stats.f_blocks * disk_stats.f_frsize
    return f"{size(free)} of {size(total)} are free"


def free_files(path: str) -> int | None:
    """How many more files the disk can hold; None where the file system does not count them."""
    with suppress(OSError):
        disk_stats = os.statvfs(_existing(path))
        return disk_stats.f_favail if disk_stats.f_files else None
    return None


def size(count: int) -> str:
    """Bytes for a person: `1.5 GB`."""
    # `runtime.humanize.size` does the same, but `io` may import nothing of `runtime`.
    number, units = float(count), ["bytes", "kB", "MB", "GB", "TB", "PB"]
    while number >= 1000 and len(units) > 1:
        number, units = number / 1000, units[1:]
    return f"{number:.3g} {units[0]}"


def _is_below(path: str, folder: str) -> bool:
    # Both are resolved: a scratch folder is often a link, and an error may name either path.
    root = os.path.realpath(folder)
    return os.path.commonpath([root, os.path.realpath(path)]) == root


def _existing(path: str) -> str:
    """The path, or the nearest folder above it that is there."""
    place = os.path.realpath(path)
    while not os.path.exists(place):
        place = os.path.dirname(place)
    return place
