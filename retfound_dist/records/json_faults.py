"""Explains the faults of a JSON file in words and by line: `line 3: files.a.bytes is missing`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

FEW = 3
"""Most faults of one file that are listed, and most bad lines that are named."""
LONGEST = 60
"""Characters of a value that are shown."""
_WORDS = (
    ("trailing characters", "something stands behind its end"),
    ("EOF while parsing a value", "a value is missing"),
    ("EOF while parsing", "it is cut off"),
    ("recursion limit exceeded", "it is nested too deep"),
    ("invalid unicode code point", "it is not UTF-8"),
    ("number out of range", "a number is too long"),
)


def plain(message: str, data: bytes) -> str:
    """The parser's message in plain words: `line 3: it is cut off`."""
    if not data.strip():
        return "it is empty"
    if not data.strip(b"\0"):
        return "it holds zero bytes alone"
    why, _, place = message.removeprefix("Invalid JSON: ").rpartition(" at line ")
    line = place.partition(" ")[0]
    if why in ("expected value", "invalid number") and re.match(
        rb"-?(NaN|Infinity)", _text_from(data, place)
    ):
        why = "NaN and Infinity are no JSON"
    why = next((words for text, words in _WORDS if why.startswith(text)), why)
    return f"line {line}: {why}"


def _text_from(data: bytes, place: str) -> bytes:
    """The data from `3 column 7` on."""
    line, _, column = place.partition(" column ")
    return data.split(b"\n", int(line))[int(line) - 1][max(0, int(column) - 1) :]


def faults_of(error: ValidationError, data: bytes) -> str:
    """The first faults of a file, each with its line and key."""
    faults = error.errors(include_url=False)
    messages = []
    for fault in faults[:FEW]:
        messages.append(f"line {line_of(data.decode(), fault['loc'])}: {_describe_fault(fault)}")
    more = f" (and {len(faults) - FEW} more)" if len(faults) > FEW else ""
    return ", ".join(messages) + more


def why_bad(error: ValueError, text: bytes) -> str:
    """Why a line of JSON lines is bad."""
    if not isinstance(error, ValidationError):
        return str(error).removeprefix("line 1: ")
    fault = error.errors(include_url=False)[0]
    if fault["type"] == "json_invalid":
        return plain(str(fault["msg"]), text).removeprefix("line 1: ")
    return _describe_fault(fault)


def _describe_fault(fault: Any) -> str:
    """`files.a.bytes is missing`, `step is a text: should be a valid integer`."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
    key = _shorten(key.removeprefix(".")) or "it"
    if fault["type"] in ("missing", "missing_argument"):
        return f"{key} is missing"
    message = re.sub(r"^(Input|Value error,|String|Object|List) ?", "", str(fault["msg"]))
    return f"{key} is {shown(fault['input'])}: {message}"


def shown(value: Any) -> str:
    """A value for a message: numbers and short texts themselves."""
    if isinstance(value, str):
        return _shorten(repr(value))
    if isinstance(value, dict | list | tuple):
        return "an object" if isinstance(value, dict) else "a list"
    return _shorten(json.dumps(value, default=str))


def _shorten(text: str) -> str:
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


# pydantic gives the keys that lead to a fault, and no line. The text is therefore walked once more, and only
# where there is a fault.
def line_of(text: str, place: Sequence[int | str]) -> int:
    """The line where the value at a place such as ("files", "a", 3) begins, or what should hold it."""
    at = _skip_space(text, 0)
    for part in place:
        inner = next((start for name, start in _members(text, at) if name == part), None)
        if inner is None:
            break
        at = inner
    return text.count("\n", 0, at) + 1


def _members(text: str, at: int) -> Iterator[tuple[int | str, int]]:
    """(name or index, where the value begins) of the members of the object or list that begins at `at`."""
    if text[at] not in "{[":
        return
    is_object, decoder, index = text[at] == "{", json.JSONDecoder(), 0
    at = _skip_space(text, at + 1)
    while text[at] not in "}]":
        member: int | str = index
        if is_object:
            member, at = decoder.raw_decode(text, at)
            at = _skip_space(text, _skip_space(text, at) + 1)  # over the colon
        yield member, at
        at = _skip_space(text, decoder.raw_decode(text, at)[1])
        at = _skip_space(text, at + 1) if text[at] == "," else at
        index += 1


def _skip_space(text: str, at: int) -> int:
    """Over white space."""
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at
