"""Walks a folder for `image_files.find_files`: each folder once, links followed safely, all else counted."""

from __future__ import annotations

import os
import stat
from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from retfound_dist.errors import DataError
from retfound_dist.files.skipped_files import (
    CYCLE,
    HEAD_BYTES,
    HIDDEN,
    NO_TARGET,
    OUTSIDE,
    READ_BY_LINK,
    REPEATED,
    SPECIAL,
    SkippedFiles,
    is_hidden,
    printable,
)

Links = Literal["inside", "anywhere"]
"""Which links are followed: those whose target lies in the folder, or all."""


@dataclass
class FolderCounts:
    """Counts of what one folder holds directly."""

    images: int = 0
    skipped: int = 0
    example: str = ""
    """One skipped file."""
    folders: int = 0


@dataclass
class FolderFiles:
    """The files of a folder, and its skipped files."""

    root: str
    """Real path."""
    links: Links
    paths: list[str] = field(default_factory=list)
    """Below `root`, sorted."""
    sizes: array[int] = field(default_factory=lambda: array("q"))
    """Bytes of each."""
    skipped: SkippedFiles = field(default_factory=SkippedFiles)
    folders: dict[str, FolderCounts] = field(default_factory=dict)
    """Every folder that was entered, by its path below `root` (`""`: the root itself)."""


def is_below(root: str, real: str) -> bool:
    """Whether a real path lies in a real folder."""
    return os.path.commonpath([root, real]) == root


def _identity(info: os.stat_result) -> int:
    """One number for a file on this machine."""
    # The constant is 2^64 divided by the golden ratio. It spreads small device numbers over 64 bits, so that
    # files of two disks with the same inode differ. A number takes 8 bytes in an array, a tuple some 100:
    # folders hold millions.
    return (info.st_dev * 0x9E3779B97F4A7C15 + info.st_ino) % 2**64


@dataclass(frozen=True)
class _Folder:
    path: str
    chain: tuple[int, ...]
    """Identities of the folders from the top folder to this one, with both."""
    behind_link: bool
    """Whether this folder, or one on the path to it, is a link."""


class Walk:
    """Visits plain folders first, then those behind links, in the order of their paths."""

    def __init__(self, root: str, extensions: tuple[str, ...], links: Links, used: frozenset[str]) -> None:
        """`root` must be a real path."""
        self._files, self._extensions, self._used = FolderFiles(root, links), extensions, used
        self._identities, self._by_link = array("Q"), bytearray()
        self._links: deque[tuple[str, tuple[int, ...]]] = deque()
        self._linked_folders: set[int] = set()

    def run(self) -> None:
        """Visit everything. Raises DataError where a folder cannot be listed."""
        root = self._files.root
        self._walk_below(_Folder("", (_identity(_stat(root, "")),), False))
        while self._links:
            # Sorted, because disks list in different orders, and the first link to a folder is the one that
            # is listed.
            waiting = sorted(self._links)
            self._links.clear()
            for path, chain in waiting:
                self._enter_link(path, chain)

    def result(self) -> FolderFiles:
        """The files in the order of their paths, each once."""
        files = self._files
        order = sorted(range(len(files.paths)), key=files.paths.__getitem__)
        if any(self._by_link):
            order = self._without_repeats(order)
        files.paths, files.sizes = (
            [files.paths[place] for place in order],
            array("q", (files.sizes[place] for place in order)),
        )
        return files

    def _without_repeats(self, order: list[int]) -> list[int]:
        """The order without second links to a file, and without files that a link leads to."""
        first: dict[int, int] = {}
        for place in order:
            if self._by_link[place]:
                first.setdefault(self._identities[place], place)
        listed = []
        for place in order:
            if first.get(self._identities[place], place) == place:
                listed.append(place)
            else:
                self._remove_image(
                    REPEATED if self._by_link[place] else READ_BY_LINK, self._files.paths[place]
                )
        return listed

    def _remove_image(self, kind: str, path: str) -> None:
        tally = self._files.folders[os.path.dirname(path)]
        tally.images -= 1
        self._pass_over(kind, path, tally)

    def _pass_over(self, kind: str, path: str, tally: FolderCounts) -> None:
        self._files.skipped.add(kind, path)
        tally.skipped += kind != HIDDEN
        tally.example = tally.example or path

    def _enter_link(self, path: str, chain: tuple[int, ...]) -> None:
        """Enter the folder behind a link, unless it was entered by a link before or contains this link.

        `chain`: that of the folder with the link.
        """
        identity = _identity(_stat(self._files.root, path))
        tally = self._files.folders[os.path.dirname(path)]
        # Only the folders on the path to the link matter: another path to the same folder is no cycle.
        if identity in chain:
            self._pass_over(CYCLE, self._link_with_target(path), tally)
        elif identity in self._linked_folders:
            self._pass_over(REPEATED, self._link_with_target(path), tally)
        else:
            self._linked_folders.add(identity)
            self._walk_below(_Folder(path, (*chain, identity), True))

    def _walk_below(self, top: _Folder) -> None:
        """Walk through a folder and all folders below it."""
        folders = [top]
        while folders:
            folder = folders.pop()
            tally = self._files.folders[folder.path] = FolderCounts()
            below: list[str] = []
            try:
                with os.scandir(os.path.join(self._files.root, folder.path)) as entries:
                    for entry in entries:
                        if self._visit(entry, folder, tally):
                            below.append(os.path.join(folder.path, entry.name))
                folders += self._subfolders(folder, sorted(below, reverse=True), tally)
            except OSError as error:
                where = printable(os.path.join(self._files.root, folder.path))
                raise DataError(f"cannot list {where}: {error.strerror}; check its rights") from error
            tally.folders += len(below)

    def _subfolders(self, folder: _Folder, paths: list[str], tally: FolderCounts) -> list[_Folder]:
        """The subfolders to enter. Of those behind links, each real folder is entered only once."""
        entered = []
        for path in paths:
            identity = _identity(_stat(self._files.root, path))
            if folder.behind_link and identity in self._linked_folders:
                self._pass_over(REPEATED, path, tally)
                continue
            if folder.behind_link:
                self._linked_folders.add(identity)
            entered.append(_Folder(path, (*folder.chain, identity), folder.behind_link))
        return entered

    def _visit(self, entry: os.DirEntry[str], folder: _Folder, tally: FolderCounts) -> bool:
        """List or count one entry; True for a subfolder, which the caller enters."""
        path = os.path.join(folder.path, entry.name)
        if is_hidden(entry.name):
            self._files.skipped.add(HIDDEN, path)
        elif entry.is_symlink():
            self._visit_link(entry, path, folder, tally)
        elif entry.is_dir(follow_symlinks=False):
            return True
        elif entry.name.lower().endswith(self._extensions):
            self._add_image(path, entry.stat(follow_symlinks=False), folder.behind_link, tally)
        elif folder.path or entry.name not in self._used:
            self._pass_file(path, tally)
        return False

    def _visit_link(self, entry: os.DirEntry[str], path: str, folder: _Folder, tally: FolderCounts) -> None:
        """Add the image that a link leads to, or keep a linked folder for later; else count the link."""
        real = os.path.realpath(entry.path)
        has_image_name = entry.name.lower().endswith(self._extensions)
        try:
            info = os.stat(real)
        except OSError:  # nothing there, or a ring of links
            self._pass_over(NO_TARGET, self._link_with_target(path), tally)
            return
        is_folder = stat.S_ISDIR(info.st_mode)
        outside = self._files.links == "inside" and not is_below(self._files.root, real)
        if outside and (is_folder or has_image_name):
            self._pass_over(OUTSIDE, self._link_with_target(path), tally)
        elif is_folder:
            tally.folders += 1
            self._links.append((path, folder.chain))
        elif has_image_name:
            self._add_image(path, info, True, tally)
        elif not outside and (folder.path or entry.name not in self._used):
            self._pass_file(path, tally)
        elif outside:  # not to be opened, only counted
            self._files.skipped.add_file(path, bytes)
            tally.skipped += 1

    def _add_image(self, path: str, info: os.stat_result, by_link: bool, tally: FolderCounts) -> None:
        if not stat.S_ISREG(info.st_mode):
            self._pass_over(SPECIAL, path, tally)
            return
        self._files.paths.append(path)
        self._files.sizes.append(info.st_size)
        self._identities.append(_identity(info))
        self._by_link.append(by_link)
        tally.images += 1

    def _pass_file(self, path: str, tally: FolderCounts) -> None:
        self._files.skipped.add_file(path, lambda: _head(os.path.join(self._files.root, path)))
        tally.skipped += 1
        tally.example = tally.example or path

    def _link_with_target(self, path: str) -> str:
        try:
            return f"{path} -> {os.readlink(os.path.join(self._files.root, path))}"
        except OSError:
            return path


def _stat(root: str, path: str) -> os.stat_result:
    return os.stat(os.path.join(root, path))


def _head(path: str) -> bytes:
    """The first bytes of a file; empty where it is not a regular file or cannot be read."""
    try:
        # Not blocking, because a named pipe without a writer would be waited for without end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with open(descriptor, "rb", buffering=0) as stream:
        is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return (stream.read(HEAD_BYTES) or b"") if is_regular else b""
