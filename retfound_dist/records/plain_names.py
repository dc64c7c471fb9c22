"""Names that a file of somebody else holds, before they become a path: one plain component, or refused.

A manifest, a commit or an archive may name `../../x`, an absolute path or a URL. Joined to a folder such a
name leads out of it, so whatever reads names from a file asks here first.
"""

from __future__ import annotations

import re

from retfound_dist.errors import DataError, RetfoundError

LONGEST = 255
"""Bytes of one name: what file systems take."""
_STRANGE = re.compile(r"[\x00-\x1f\x7f]")


def why_not_plain(name: object) -> str:
    """Why a value is no plain name of a file in one folder; empty where it is one."""
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
    """The name itself; `error` where it is not one plain name. `where`: the file that holds it."""
    if why := why_not_plain(name):
        raise refusal(name, where, why, error)
    return str(name)


def plain_path(path: object, where: str, error: type[RetfoundError] = DataError) -> str:
    """A path of plain names with `/` between them (`state/rank_0.pt`), which stays below its folder."""
    if not isinstance(path, str):
        raise refusal(path, where, "is no text", error)
    for part in path.split("/"):
        if why := why_not_plain(part):
            raise refusal(path, where, why, error)
    return path


def refusal(name: object, where: str, why: str, error: type[RetfoundError] = DataError) -> RetfoundError:
    """The error for a name that is not to be used."""
    shown = ascii(name)
    shown = shown if len(shown) <= 120 else f"{shown[:117]}..."
    return error(
        f"{where} names {shown}, which {why}: this software writes no such name, so the file was damaged or "
        "forged; do not use it, get it again from where it was made"
    )
