"""Reports unexpected errors: one line with the place, a file with the traceback, an exit code of its own."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from pathlib import Path

from retfound_dist.io.urls import mask

EXIT_CODE = 70
"""`EX_SOFTWARE` of sysexits.h: a fault of this software or of this machine, and not of the input."""
_PACKAGE = Path(__file__).resolve().parents[1]
_OUR_FOLDERS = (_PACKAGE, _PACKAGE.parent / "shards")


def report_unexpected(error: BaseException, debug: bool) -> int:
    """Print the error and return the exit code. `debug`: with the traceback."""
    text = "".join(traceback.format_exception(error))
    if debug:
        print(text, file=sys.stderr, end="")
    saved_path = "" if debug else _save_traceback(text)
    where = f"the whole traceback is in {saved_path}" if saved_path else "--debug shows the whole traceback"
    advice = "" if debug else f": {where}, which a report of this fault needs"
    print(f"retfound: {summary(error)}{advice}", file=sys.stderr)
    return EXIT_CODE


def summary(error: BaseException) -> str:
    """`unexpected KeyError: 'x' (retfound_dist/runs/run_list.py, line 12)`."""
    message = " ".join(str(error).split())
    message = f": {message if len(message) <= 300 else message[:297] + '...'}" if message else ""
    place = _innermost_line(error)
    return f"unexpected {type(error).__name__}{message}" + (f" ({place})" if place else "")


def _innermost_line(error: BaseException) -> str:
    """The innermost line of this project in the traceback: `PATH, line N`; empty where there is none.

    Lines of libraries are passed over: they do not show which call of this project failed.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if any(root in path.parents for root in _OUR_FOLDERS):
            return f"{path.relative_to(_OUR_FOLDERS[0].parent).as_posix()}, line {frame.lineno}"
    return ""


def _save_traceback(text: str) -> str:
    """Save the text in a file that only this user can read. Returns its path; empty where that fails."""
    try:
        # mkstemp gives mode 0600: a traceback may hold names of patients.
        number, path = tempfile.mkstemp(prefix="retfound-error-", suffix=".txt")
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(mask(f"{' '.join(sys.argv)}\n{text}"))  # it is sent to others
    except OSError:
        return ""
    return path
