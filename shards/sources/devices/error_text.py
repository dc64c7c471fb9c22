"""Removes everything that may identify a patient from error messages of libraries.

It removes paths and quoted contents, and every word that is in the file: for DICOM in fields of the patient
and in all names, numbers and dates; for other formats anywhere in the file.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

MAX_LENGTH = 200
"""Characters of a message that are shown."""
HIDDEN = "..."
_QUOTED = re.compile(r"""b?'(?:[^'\\\n]|\\.)*'|b?"(?:[^"\\\n]|\\.)*\"""")
_WORD = re.compile(r"[^\W_]{3,}|\d{2,}")
_SECRET_KINDS = frozenset(("PN", "DA", "DT", "AS"))
"""DICOM's value representations of names, dates and ages."""
_PATIENT = 0x0010
"""DICOM's group of fields about the patient."""
_SECRET_NAMES = ("AccessionNumber", "StudyID", "InstitutionName", "InstitutionAddress", "StationName")


def safe_error_text(error: BaseException, path: str, file: Any = None) -> str:
    """Returns class and text of an error in one line, without names of people and without the path.

    `file`: the data set of a readable DICOM file.
    """
    name, text = type(error).__name__, " ".join(str(error).split())
    if not text:
        return name
    for part in (path, os.path.basename(path), os.path.dirname(path)):
        text = text.replace(part, HIDDEN) if len(part) > 2 else text
    is_secret = _dicom_words(file) if file is not None else _file_words(path)
    # DICOM has fields for names. In other formats any quoted text may be a name.
    text = text if file is not None else _QUOTED.sub(HIDDEN, text)
    path_words = {part.lower() for part in _WORD.findall(path)}
    safe = _WORD.sub(lambda m: HIDDEN if m[0].lower() in path_words or is_secret(m[0]) else m[0], text)
    return f"{name}: {safe[:MAX_LENGTH]}"


def _dicom_words(file: Any) -> Callable[[str], bool]:
    """Returns a function that says whether a word is in a field that may identify a patient."""
    words = {word.lower() for value in _secret_values(file) for word in _WORD.findall(value)}
    return lambda word: word.lower() in words


def _secret_values(file: Any) -> Iterator[str]:
    """Yields the values in a DICOM file that may identify a person."""
    for element in file.iterall():
        is_secret_name = element.keyword in _SECRET_NAMES
        if element.tag.group == _PATIENT or element.VR in _SECRET_KINDS or is_secret_name:
            yield str(element.value)


def _file_words(path: str) -> Callable[[str], bool]:
    """Returns a function that says whether a word is in the file, in 8-bit or 16-bit letters."""

    def is_in_file(word: str) -> bool:
        try:
            with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                # Libraries change the case of names, and these formats use three encodings.
                spellings = {word, word.lower(), word.upper(), word.capitalize()}
                encodings = ("latin-1", "utf-8", "utf-16-le")
                encoded = {spelling.encode(e, "ignore") for spelling in spellings for e in encodings}
                return any(len(text) > 2 and data.find(text) >= 0 for text in encoded)
        except (OSError, ValueError):
            return False

    return is_in_file
