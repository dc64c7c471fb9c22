"""Filters all output to terminals and logs: secrets are masked, control sequences are removed.

    with filtered_output():
        ...                    print, warnings, logging and tracebacks go through `FilteringStream`

Secrets of URLs and of the environment are masked (retfound_dist.io.urls.mask). Characters that control a
terminal (escape sequences, carriage returns, marks that change the direction of writing) are shown as `?`:
file names of others may hold them. Progress bars write to the terminal itself (`rich_proxied_file`).
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO

from retfound_dist.io.urls import mask

_ALLOWED_CONTROLS = frozenset("\n\t")
_RICH_CODES = re.compile(r"(\x1b\[[0-9;?]*[A-HJKSTfhlm]|\r)")
"""Colours, cursor moves and erasures that rich uses to draw bars and tables."""


class MaskingStream:
    """A text stream that masks secrets. Everything else is passed on to the stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text without its secrets."""
        self._stream.write(mask(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class RichStream(MaskingStream):
    """A terminal that rich draws on: colours and cursor moves pass, all other control sequences do not."""

    def write(self, text: str) -> int:
        """Write a text without secrets; no title, clipboard or link is set by a name that it holds."""
        parts = _RICH_CODES.split(mask(text))
        self._stream.write(
            "".join(part if place % 2 else _replace_controls(part) for place, part in enumerate(parts))
        )
        return len(text)


class FilteringStream(MaskingStream):
    """A stream that also shows control characters as `?`."""

    @property
    def rich_proxied_file(self) -> MaskingStream:
        """The stream for rich. Its colours and bars are let through on a terminal only."""
        return RichStream(self._stream) if self._stream.isatty() else self

    def write(self, text: str) -> int:
        """Write a text without secrets and control sequences."""
        self._stream.write(without_controls(mask(text)))
        return len(text)


def without_controls(text: str) -> str:
    """A text without control characters. A `\\r` at its beginning belongs to a progress bar and stays."""
    if text.isascii() and text.isprintable():
        return text
    first, rest = ("\r", text[1:]) if text.startswith("\r") else ("", text)
    rest = rest.replace("\r\n", "\n")
    return first + _replace_controls(rest)


def _replace_controls(text: str) -> str:
    return "".join(letter if letter in _ALLOWED_CONTROLS or _is_shown(letter) else "?" for letter in text)


def _is_shown(letter: str) -> bool:
    """Whether a letter is printable, or an undecodable byte, which the stream itself escapes."""
    return letter.isprintable() or "\udc80" <= letter <= "\udcff"


@contextmanager
def filtered_output() -> Iterator[None]:
    """Guards stdout and stderr of this process to the end of the block.

    An uncaught error is printed after the block. The hook that prints it masks too, and stays installed.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = FilteringStream(sys.stdout), FilteringStream(sys.stderr)
    # Somebody else's hook (a debugger's, a test runner's) is left in place.
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _masked_hook
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def filter_output() -> None:
    """Guards stdout and stderr for the rest of a process that a command has started."""
    if not isinstance(sys.stderr, MaskingStream) and sys.stdout is not None and sys.stderr is not None:
        sys.stdout, sys.stderr = FilteringStream(sys.stdout), FilteringStream(sys.stderr)


def _masked_hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    text = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(without_controls(mask(text)))
