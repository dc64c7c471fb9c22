"""Checks names from files of others before they become paths. Each must be one plain path component.

A manifest, a commit or an archive may name `../../x`, an absolute path or a URL. Joined to a folder, such a
name leads out of it. So all code that reads names from a file checks them here.
"""

from __future__ import annotations

import re

from retfound_dist.errors import DataError, RetfoundError

MAX_NAME_BYTES = 255
"""Most bytes of a name on common file systems."""
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


def name_fault(name: object) -> str:
    """Why a value is not a plain file name; empty where it is one."""
    if not isinstance(name, str):
        return "is not a text"
    if name in ("", ".", ".."):
        return "is not a file name"
    # Backslashes too: the same set may be read on Windows, where they separate folders.
    if "/" in name or "\\" in name:
        return "leads to another folder"
    if ":" in name:
        return "is written like a URL or a drive"
    if _UNPRINTABLE.search(name):
        return "contains a character that cannot be printed"
    try:
        length = len(name.encode())
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can contain
        return "is not valid UTF-8"
    return "" if length <= MAX_NAME_BYTES else f"is longer than {MAX_NAME_BYTES} bytes"


def checked_name(name: object, where: str, error: type[RetfoundError] = DataError) -> str:
    """Returns the name. Raises `error` where it is not one plain name. `where`: the file that contains it."""
    if fault := name_fault(name):
        raise name_error(name, where, fault, error)
    return str(name)


def checked_path(path: object, where: str, error: type[RetfoundError] = DataError) -> str:
    """Returns a path of plain names and `/` (`state/rank_0.pt`). Raises `error` where it may lead out."""
    if not isinstance(path, str):
        raise name_error(path, where, "is not a text", error)
    for part in path.split("/"):
        if fault := name_fault(part):
            raise name_error(path, where, fault, error)
    return path


def name_error(name: object, where: str, fault: str, error: type[RetfoundError] = DataError) -> RetfoundError:
    """The error for a name that must not be used."""
    shown = ascii(name)
    shown = shown if len(shown) <= 120 else f"{shown[:117]}..."
    return error(
        f"{where} names {shown}, which {fault}: this software writes no such names, so the file "
        "is damaged or forged; do not use it, get it again from its source"
    )
