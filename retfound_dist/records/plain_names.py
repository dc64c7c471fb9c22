"""Checks names from files of others before they become paths: one plain component, or an error.

A manifest, a commit or an archive may name `../../x`, an absolute path or a URL. Joined to a folder, such a
name leads out of it. All code that reads names from a file therefore checks them here.
"""

from __future__ import annotations

import re

from retfound_dist.errors import DataError, RetfoundError

LONGEST = 255
"""Most bytes of one name on common file systems."""
_STRANGE = re.compile(r"[\x00-\x1f\x7f]")


def why_not_plain(name: object) -> str:
    """Why a value is not a plain file name; empty where it is one."""
    if not isinstance(name, str):
        return "is no text"
    if name in ("", ".", ".."):
        return "is no file's name"
    # Backslashes too: the same set may be read on Windows, where they separate folders.
    if "/" in name or "\\" in name:
        return "leads to another folder"
    if ":" in name:
        return "is written like a URL or a drive"
    if _STRANGE.search(name):
        return "holds a character that cannot be printed"
    try:
        length = len(name.encode())
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        return "is no text in UTF-8"
    return "" if length <= LONGEST else f"is longer than {LONGEST} bytes"


def plain_name(name: object, where: str, error: type[RetfoundError] = DataError) -> str:
    """Returns the name. Raises `error` where it is not one plain name. `where`: the file that holds it."""
    if why := why_not_plain(name):
        raise refusal(name, where, why, error)
    return str(name)


def plain_path(path: object, where: str, error: type[RetfoundError] = DataError) -> str:
    """Returns a path of plain names and `/` (`state/rank_0.pt`). Raises `error` where it may lead out."""
    if not isinstance(path, str):
        raise refusal(path, where, "is no text", error)
    for part in path.split("/"):
        if why := why_not_plain(part):
            raise refusal(path, where, why, error)
    return path


def refusal(name: object, where: str, why: str, error: type[RetfoundError] = DataError) -> RetfoundError:
    """The error for a name that must not be used."""
    shown = ascii(name)
    shown = shown if len(shown) <= 120 else f"{shown[:117]}..."
    return error(
        f"{where} names {shown}, which {why}: this software writes no such name, so the file was damaged or "
        "forged; do not use it, get it again from where it was made"
    )
