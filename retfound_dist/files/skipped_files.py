"""Counts the files that a listing of images passes over, by kind, with an example and advice for each.

    passed over: 12 files .npy, such as a/b.npy: not an image
    passed over: 3 files that look like DICOM, such as IM0001: `retfound pack` reads them with ...

Memory is bounded: there is one counter for each kind, and a limit on the number of kinds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

HIDDEN, DICOM, DEVICE, ARCHIVE, PICTURE, TABLE, SPECIAL = (
    "hidden",
    "dicom",
    "device",
    "archive",
    "picture",
    "table",
    "special",
)
# Links that are not followed, and (`READ_BY_LINK`) files that are read by a link instead.
OUTSIDE, NO_TARGET, CYCLE, REPEATED, READ_BY_LINK = "out", "gone", "cycle", "again", "linked"
HIDDEN_FILES = "hidden or of the operating system"
"""Words for such files in a message. Nobody has to act on them."""
# `.ima` is Siemens' name for DICOM.
_DICOM_EXTENSIONS = frozenset((".dcm", ".dicom", ".ima"))
_DEVICE_EXTENSIONS = frozenset((".vol", ".e2e", ".fda", ".fds", ".oct", ".mat"))
_ARCHIVE_EXTENSIONS = frozenset(
    (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar", ".bz2", ".xz", ".zst", ".tbz2")
)
_PICTURE_EXTENSIONS = frozenset(
    (".heic", ".heif", ".avif", ".jxl", ".svg", ".psd", ".dng", ".nef", ".cr2", ".raw", ".tga", ".pcx")
)
_TABLE_EXTENSIONS = frozenset((".csv", ".tsv", ".xlsx", ".xls", ".ods"))
_KIND_EXTENSIONS = {
    DICOM: _DICOM_EXTENSIONS,
    DEVICE: _DEVICE_EXTENSIONS,
    ARCHIVE: _ARCHIVE_EXTENSIONS,
    PICTURE: _PICTURE_EXTENSIONS,
    TABLE: _TABLE_EXTENSIONS,
}
_MAGIC = ((b"PK\x03\x04", 0), (b"7z\xbc\xaf\x27\x1c", 0), (b"Rar!", 0), (b"\x1f\x8b", 0), (b"ustar", 257))
# The last of them, `ustar` in the header of a tar, ends at byte 262.
HEAD_BYTES = 264
"""Bytes at the beginning of a file that identify DICOM and archives."""
MOST_OPENED = 1000
"""Most files of one extension that are opened. The others are counted as what most of these were."""
MOST_KINDS = 200
"""Extensions that are counted apart."""
MOST_LINES = 15
LONGEST_EXAMPLE = 160
"""Characters of an example."""
_SYSTEM_FILES = frozenset(("thumbs.db", "desktop.ini", "__macosx", "ehthumbs.db", "$recycle.bin"))


def printable(path: str) -> str:
    """A file name as one printable line, whatever bytes it holds."""
    if path.isprintable() and path.isascii():
        return path
    text = os.fsencode(path).decode(errors="replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def is_hidden(name: str) -> bool:
    """Whether a name is hidden, or one that an operating system leaves behind."""
    return name.startswith(".") or name.lower() in _SYSTEM_FILES


@dataclass
class _Kind:
    count: int
    example: str


class SkippedFiles:
    """Counts by kind. A kind is one of this module's, or an extension such as `.npy`."""

    def __init__(self) -> None:
        """Start with no files."""
        self._kinds: dict[str, _Kind] = {}
        self._opened_kinds: dict[str, dict[str, int]] = {}

    def __len__(self) -> int:
        """Number of skipped files, without hidden ones."""
        return sum(tally.count for kind, tally in self._kinds.items() if kind != HIDDEN)

    def add(self, kind: str, example: str) -> None:
        """Count one; `example` is a path below the listed folder."""
        if kind.startswith(".") and kind not in self._kinds and len(self._kinds) >= MOST_KINDS:
            kind = ".*"
        entry = self._kinds.get(kind)
        if entry is None:
            self._kinds[kind] = _Kind(1, example)
            return
        entry.count += 1
        # The smallest one: the example does not depend on the order in which a disk lists.
        entry.example = min(entry.example, example)

    def add_file(self, path: str, read_head: Callable[[], bytes]) -> None:
        """Count a file that is not named like an image; `read_head` gives its first HEAD_BYTES bytes."""
        extension = extension_of(path)
        self.add(_kind_by_name(extension) or self._kind_by_content(extension, read_head), path)

    def count(self, kind: str) -> int:
        """How many of one kind."""
        return self._kinds[kind].count if kind in self._kinds else 0

    def lines(self, follow: str = "", *, named: bool = True) -> list[str]:
        """A sentence for each kind, the largest first; `follow`: how a user allows links that lead out.

        `named`: with an example of each kind. Names of device files may hold names of people.
        """
        kinds = sorted(self._kinds.items(), key=lambda item: (item[0] == HIDDEN, -item[1].count, item[0]))
        sentences = [_skipped_sentence(kind, tally, follow, named) for kind, tally in kinds]
        if len(sentences) <= MOST_LINES:
            return sentences
        rest = sum(tally.count for _, tally in kinds[MOST_LINES:])
        more = f"passed over: {rest:,} more of {len(sentences) - MOST_LINES:,} other kinds"
        return [*sentences[:MOST_LINES], more]

    def _kind_by_content(self, extension: str, read_head: Callable[[], bytes]) -> str:
        """Detect DICOM and archives by their content. Of many files of one extension only some are opened."""
        seen = self._opened_kinds.setdefault(extension if len(self._opened_kinds) < MOST_KINDS else ".*", {})
        if sum(seen.values()) >= MOST_OPENED:
            return max(sorted(seen), key=seen.__getitem__)
        kind = _kind_by_head(read_head()) or extension
        seen[kind] = seen.get(kind, 0) + 1
        return kind


def extension_of(path: str) -> str:
    """Lower-case extension; `.` where there is none, and where it is a number (DICOM's names end so)."""
    extension = os.path.splitext(path)[1].lower()
    return "." if len(extension) < 2 or len(extension) > 12 or extension[1:].isdigit() else extension


def _kind_by_name(extension: str) -> str | None:
    return next((kind for kind, extensions in _KIND_EXTENSIONS.items() if extension in extensions), None)


def _kind_by_head(head: bytes) -> str | None:
    if head[128:132] == b"DICM":
        return DICOM
    return ARCHIVE if any(head[at:].startswith(magic) for magic, at in _MAGIC) else None


def _skipped_sentence(kind: str, tally: _Kind, follow: str, named: bool) -> str:
    """One kind of skipped files: how many, an example if `named`, and what to do."""
    one = tally.count == 1
    example = printable(tally.example)
    if len(example) > LONGEST_EXAMPLE:
        example = f"{example[: LONGEST_EXAMPLE - 3]}..."
    such = f", such as {example}" if named else ""
    count = f"{tally.count:,}"
    allow = f"; {follow} follows them if you trust this folder" if follow else ""
    files = f"{count} file{'' if one else 's'}"
    device = "`retfound pack` reads such files with source.kind=device"
    sentences = {
        HIDDEN: f"{count} {HIDDEN_FILES}{such}",
        DICOM: f"{files} that look{'s' if one else ''} like DICOM{such}: {device}",
        DEVICE: f"{files} of the kinds that OCT devices write{such}: {device}",
        ARCHIVE: f"{count} archive{'' if one else 's'}{such}: unpack {'it' if one else 'them'}",
        PICTURE: f"{files} in a picture format that is not read{such}: save as PNG or TIFF",
        TABLE: f"{count} table{'' if one else 's'}{such}: not read. Labels and patients are read from "
        "manifest.csv (or .tsv, .xlsx) in the given folder, or from a table that is given itself",
        SPECIAL: f"{count} named like an image but no regular file (a pipe, a device){such}",
        OUTSIDE: f"{count} link{'' if one else 's'} that lead{'s' if one else ''} out of the folder{such}"
        f"{allow}",
        NO_TARGET: f"{count} link{'' if one else 's'} to a missing target{such}: restore the target",
        CYCLE: f"{count} link{'' if one else 's'} to a folder that holds the link{such}",
        REPEATED: f"{count} link{'' if one else 's'} to the target of another link{such}",
        READ_BY_LINK: f"{files} that a link inside the folder stands for{such}: read once, by the link",
        ".": f"{files} without an extension{such}: not an image by name",
        ".*": f"{files} of many other extensions{such}: not an image",
    }
    return "passed over: " + sentences.get(kind, f"{files} {printable(kind)}{such}: not an image")
