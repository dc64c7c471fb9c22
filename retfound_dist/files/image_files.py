"""Finds image files below a folder: the same list for `pack`, `evaluate`, `compare`, `watch` and `embed`.

    files = find_files("data/octid")
    files.paths                 sorted, below files.root
    files.skipped.lines()        the skipped files, counted, with examples

Links to files and folders inside the folder are followed. A link that leads out of the folder is skipped
and named, unless links = "anywhere". A link to a folder that holds the link is always skipped. A file
that is found by a link and by its own path is listed once, by the link: hub caches name files in this way.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from functools import lru_cache

from retfound_dist.errors import DataError
from retfound_dist.files.folder_walk import FolderFiles, Links, Walk, is_below

IMAGE_EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".tif", ".tiff", ".bmp", ".dib", ".webp", ".gif"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".pgm", ".ppm", ".pbm", ".pnm"),
)
"""Extensions of image files. The decoder looks at the content to know the format."""
NAMED_ENDS = "jpg, png, tif, bmp, webp, gif, jp2 or pgm"
"""The same in short, for messages."""
MAX_FILE_BYTES = 256_000_000
"""No single B-scan is larger. Larger files are not read into memory."""


def find_files(
    root: str,
    extensions: tuple[str, ...] = IMAGE_EXTENSIONS,
    links: Links = "inside",
    used: Collection[str] = (),
) -> FolderFiles:
    """All files with these extensions. Raises DataError where a folder cannot be listed.

    `used`: names in the root folder that the caller reads itself (a listing). They are not counted.
    """
    walk = Walk(os.path.realpath(root), extensions, links, frozenset(used))
    walk.run()
    return walk.result()


def read_file(root: str, file: str, links: Links = "inside") -> bytes:
    """The bytes of a regular file below `root`. DataError where a link leads out, or it is too large."""
    folder, name = os.path.split(file)
    path = os.path.join(_real_folder(root, folder, links), name)
    if os.path.islink(path) or name == "..":
        path = _inside(root, os.path.realpath(path), links)
    # A pipe or a device must not be waited for, and what was checked must be what is opened.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as stream:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise DataError("is not a regular file")
        if info.st_size > MAX_FILE_BYTES:
            raise DataError(f"has {info.st_size:,} bytes, more than the {MAX_FILE_BYTES:,} of any B-scan")
        return stream.readall()


# A folder holds thousands of images; its real path is resolved once.
@lru_cache(maxsize=4096)
def _real_folder(root: str, folder: str, links: Links) -> str:
    return _inside(root, os.path.realpath(os.path.join(root, folder)), links)


def _inside(root: str, real: str, links: Links) -> str:
    if links == "inside" and not is_below(root, real):
        raise DataError("leads out of its folder (by a symbolic link or ..)")
    return real
