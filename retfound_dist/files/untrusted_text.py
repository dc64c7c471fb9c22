"""Makes text of others (names of files, classes, runs) safe for terminals and Markdown.

plain(text)       one printable line: no escape sequences, no marks that change the direction of writing
markdown(text)    plain, and nothing of it is a tag, a link, a picture, a heading or the edge of a cell
fence(text)       the marks around a block of code that its text cannot end
"""

from __future__ import annotations

import re

from retfound_dist.files.skipped_files import printable

_TAGS = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "\\|"})
_SIGNS = str.maketrans({":": "&#58;", "@": "&#64;", ".": "&#46;"})
_MARKS = re.compile(r"([\\`*\[\]~$!])")
_EDGE_LINES = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
"""Underscores at the edge of a word, which may start emphasis. Inside a word they do not."""
_ADDRESS = re.compile(
    r"(?i)\b[a-z][a-z0-9+.-]*:(?=//)|\b(?:mailto|xmpp|javascript|vbscript|data):(?=\S)|\bwww\.|(?<=\S)@(?=\S)"
)
"""Text that Markdown turns into links by itself."""
_LINE_START = re.compile(r"^(\d*)([#+=:.)-])")
_TICKS = re.compile(r"`+")


def plain(text: object) -> str:
    """A text as one printable line. Control characters become `?`."""
    return printable(" ".join(str(text).split()))


def markdown(text: object) -> str:
    """A text as plain words in Markdown, in a line, an item of a list or a cell of a table."""
    # Backslashes first: what the later steps insert must not be escaped again.
    safe = _MARKS.sub(r"\\\1", plain(text)).translate(_TAGS)
    safe = _EDGE_LINES.sub(r"\\_", safe)
    safe = _ADDRESS.sub(lambda match: match[0].translate(_SIGNS), safe)
    return _LINE_START.sub(r"\1\\\2", safe)


def code(text: object) -> str:
    """A text between two backticks, which it cannot end."""
    return plain(text).replace("`", "'").replace("|", "\\|")


def fence(text: str) -> str:
    """Backticks that begin and end a block of code with this text in it."""
    longest = max((len(run) for run in _TICKS.findall(text)), default=0)
    return "`" * max(3, longest + 1)
