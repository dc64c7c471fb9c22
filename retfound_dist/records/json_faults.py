"""Explains the faults of a JSON file in words and by line: `line 3: files.a.bytes is missing`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

MAX_LISTED = 3
"""Most faults of one file that are listed, and most bad lines that are named."""
MAX_SHOWN_LETTERS = 60
"""Most characters of a value that are shown."""
_PLAIN_WORDS = (
    ("trailing characters", "there is text after its end"),
    ("EOF while parsing a value", "a value is missing"),
    ("EOF while parsing", "it is cut off"),
    ("recursion limit exceeded", "it is nested too deep"),
    ("invalid unicode code point", "it is not UTF-8"),
    ("number out of range", "a number is too long"),
)


def plain_message(message: str, data: bytes) -> str:
    """The parser's message in plain words: `line 3: it is cut off`."""
    if not data.strip():
        return "it is empty"
    if not data.strip(b"\0"):
        return "it contains only zero bytes"
    message_text, _, place = message.removeprefix("Invalid JSON: ").rpartition(" at line ")
    line = place.partition(" ")[0]
    if message_text in ("expected value", "invalid number") and re.match(
        rb"-?(NaN|Infinity)", _text_from(data, place)
    ):
        message_text = "NaN and Infinity are not JSON"
    message_text = next(
        (words for text, words in _PLAIN_WORDS if message_text.startswith(text)), message_text
    )
    return f"line {line}: {message_text}"


def _text_from(data: bytes, place: str) -> bytes:
    """The data from `3 column 7` on."""
    line, _, column = place.partition(" column ")
    return data.split(b"\n", int(line))[int(line) - 1][max(0, int(column) - 1) :]


def faults_of(error: ValidationError, data: bytes) -> str:
    """The first faults of a file, each with its line and key."""
    faults = error.errors(include_url=False)
    messages = []
    for fault in faults[:MAX_LISTED]:
        messages.append(f"line {line_of(data.decode(), fault['loc'])}: {_describe_fault(fault)}")
    more = f" (and {len(faults) - MAX_LISTED} more)" if len(faults) > MAX_LISTED else ""
    return ", ".join(messages) + more


def line_fault(error: ValueError, text: bytes) -> str:
    """Why a line of a JSON lines file is bad."""
    if not isinstance(error, ValidationError):
        return str(error).removeprefix("line 1: ")
    fault = error.errors(include_url=False)[0]
    if fault["type"] == "json_invalid":
        return plain_message(str(fault["msg"]), text).removeprefix("line 1: ")
    return _describe_fault(fault)


def _describe_fault(fault: Any) -> str:
    """`files.a.bytes is missing`, `step is a text: should be a valid integer`."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
    key = _shorten(key.removeprefix(".")) or "it"
    if fault["type"] in ("missing", "missing_argument"):
        return f"{key} is missing"
    message = re.sub(r"^(Input|Value error,|String|Object|List) ?", "", str(fault["msg"]))
    return f"{key} is {value_text(fault['input'])}: {message}"


def value_text(value: Any) -> str:
    """A value as a text for a message: numbers and short texts unchanged."""
    if isinstance(value, str):
        return _shorten(repr(value))
    if isinstance(value, dict | list | tuple):
        return "an object" if isinstance(value, dict) else "a list"
    return _shorten(json.dumps(value, default=str))


def _shorten(text: str) -> str:
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= MAX_SHOWN_LETTERS else text[: MAX_SHOWN_LETTERS - 3] + "..."


# pydantic gives the keys that lead to a fault, but no line. So the text is searched once more, and only where
# there is a fault.
def line_of(text: str, keys: Sequence[int | str]) -> int:
    """The line where the value at keys such as ("files", "a", 3) begins, or where its parent begins."""
    offset = _skip_space(text, 0)
    for part in keys:
        start = next((start for name, start in _members(text, offset) if name == part), None)
        if start is None:
            break
        offset = start
    return text.count("\n", 0, offset) + 1


def _members(text: str, offset: int) -> Iterator[tuple[int | str, int]]:
    """(name or index, where the value begins) of the members of the object or list that begins at
    `offset`."""
    if text[offset] not in "{[":
        return
    is_object, decoder, index = text[offset] == "{", json.JSONDecoder(), 0
    offset = _skip_space(text, offset + 1)
    while text[offset] not in "}]":
        member: int | str = index
        if is_object:
            member, offset = decoder.raw_decode(text, offset)
            offset = _skip_space(text, _skip_space(text, offset) + 1)  # over the colon
        yield member, offset
        offset = _skip_space(text, decoder.raw_decode(text, offset)[1])
        offset = _skip_space(text, offset + 1) if text[offset] == "," else offset
        index += 1


def _skip_space(text: str, offset: int) -> int:
    """The offset of the next letter that is not white space."""
    while offset < len(text) and text[offset] in " \t\r\n":
        offset += 1
    return offset
