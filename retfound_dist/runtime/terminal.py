"""The one way out to a terminal or log: whatever is printed passes here, without secrets and without orders.

    with guarded():
        ...                    print, warnings, logging and tracebacks go through `Guarded`

Secrets of URLs and of the environment are masked (retfound_dist.io.urls.mask). Letters that a terminal obeys
(escape sequences, carriage returns, signs that turn the direction of writing) are shown as `?`: they come
from names that others gave. Progress bars write to the terminal itself (`rich_proxied_file`).
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
"""Colours, moves and erasures of rich, which has a bar or a table to draw."""


class Masked:
    """A text stream that masks secrets; everything else is the stream's own."""

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


class Painted(Masked):
    """A terminal that rich paints on: colours and the cursor's moves pass, all other orders do not."""

    def write(self, text: str) -> int:
        """Write a text without secrets; no title, clipboard or link is set by a name that it holds."""
        parts = _RICH_CODES.split(mask(text))
        self._stream.write("".join(part if place % 2 else _shown(part) for place, part in enumerate(parts)))
        return len(text)


class Guarded(Masked):
    """A stream that also shows what a terminal would obey as `?`."""

    @property
    def rich_proxied_file(self) -> Masked:
        """Where rich writes: its own colours and bars are wanted, on a terminal alone."""
        return Painted(self._stream) if self._stream.isatty() else self

    def write(self, text: str) -> int:
        """Write a text without secrets and orders."""
        self._stream.write(harmless(mask(text)))
        return len(text)


def harmless(text: str) -> str:
    """A text of one or more lines that no terminal obeys; a `\\r` at its beginning is a bar's and stays."""
    if text.isascii() and text.isprintable():
        return text
    first, rest = ("\r", text[1:]) if text.startswith("\r") else ("", text)
    rest = rest.replace("\r\n", "\n")
    return first + _shown(rest)


def _shown(text: str) -> str:
    return "".join(letter if letter in _ALLOWED_CONTROLS or _is_shown(letter) else "?" for letter in text)


def _is_shown(letter: str) -> bool:
    """Printable ones, and the halves of bytes that are no text, which the stream itself spells out."""
    return letter.isprintable() or "\udc80" <= letter <= "\udcff"


@contextmanager
def guarded() -> Iterator[None]:
    """stdout and stderr of this process without secrets and orders, to the end of the block.

    An error that nobody catches is printed after it: by a hook that masks too, and stays.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Guarded(sys.stdout), Guarded(sys.stderr)
    # Somebody else's hook (a debugger's, a test runner's) is left in place.
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _masked_hook
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def guard() -> None:
    """The same for the rest of a process: one that a command has started."""
    if not isinstance(sys.stderr, Masked) and sys.stdout is not None and sys.stderr is not None:
        sys.stdout, sys.stderr = Guarded(sys.stdout), Guarded(sys.stderr)


def _masked_hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    text = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(harmless(mask(text)))
