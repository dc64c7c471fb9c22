"""Error messages of libraries, without anything that may identify a patient.

Paths and quoted contents are removed. So is every word that the file itself holds: in DICOM in the fields
of the patient and in all names, numbers and dates; in other formats anywhere in the file.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

LONGEST = 200
"""Characters that are kept."""
HIDDEN = "..."
_QUOTED = re.compile(r"""b?'(?:[^'\\\n]|\\.)*'|b?"(?:[^"\\\n]|\\.)*\"""")
_WORD = re.compile(r"[^\W_]{3,}|\d{2,}")
_SECRET_KINDS = frozenset(("PN", "DA", "DT", "AS"))
"""DICOM's value representations of names, dates and ages."""
_PATIENT = 0x0010
"""DICOM's group of everything about the patient."""
_SECRET_NAMES = ("AccessionNumber", "StudyID", "InstitutionName", "InstitutionAddress", "StationName")


def safe_error_text(error: BaseException, path: str, file: Any = None) -> str:
    """Class and text of an error in one line; `file`: the DICOM file's data set, where it could be read."""
    name, text = type(error).__name__, " ".join(str(error).split())
    if not text:
        return name
    for part in (path, os.path.basename(path), os.path.dirname(path)):
        text = text.replace(part, HIDDEN) if len(part) > 2 else text
    is_secret = _of_dicom(file) if file is not None else _in_file(path)
    # Of DICOM the names are known by their fields; of other formats whatever is quoted may be one.
    text = text if file is not None else _QUOTED.sub(HIDDEN, text)
    places = {part.lower() for part in _WORD.findall(path)}
    shown = _WORD.sub(lambda m: HIDDEN if m[0].lower() in places or is_secret(m[0]) else m[0], text)
    return f"{name}: {shown[:LONGEST]}"


def _of_dicom(file: Any) -> Callable[[str], bool]:
    words = {word.lower() for value in _secrets(file) for word in _WORD.findall(value)}
    return lambda word: word.lower() in words


def _secrets(file: Any) -> Iterator[str]:
    for element in file.iterall():
        named = element.keyword in _SECRET_NAMES
        if element.tag.group == _PATIENT or element.VR in _SECRET_KINDS or named:
            yield str(element.value)


def _in_file(path: str) -> Callable[[str], bool]:
    """Whether a word stands in the file, in 8-bit or 16-bit letters."""

    def found(word: str) -> bool:
        try:
            with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                # Libraries change the case of names, and these formats store text in three codings.
                spellings = {word, word.lower(), word.upper(), word.capitalize()}
                coded = {s.encode(c, "ignore") for s in spellings for c in ("latin-1", "utf-8", "utf-16-le")}
                return any(len(one) > 2 and data.find(one) >= 0 for one in coded)
        except (OSError, ValueError):
            return False

    return found
