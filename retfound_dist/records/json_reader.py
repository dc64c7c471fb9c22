"""Reads JSON files: turns the bytes at a URL into a typed value, or into an error of one line about the
fault.

    holder = records.read(url, Holder, "delete it to take the run over")
    log = records.read_lines(url, Step)      # log.rows, log.fault

A kind is any type that pydantic accepts: a frozen dataclass, a TypedDict, `dict[str, Any]`. Types are strict:
`"3"` and `true` are not numbers, and no number is NaN or infinite. Unknown keys are ignored, because a later
version may have written them. Another `format` is an error.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, is_dataclass
from functools import lru_cache
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from typing_extensions import is_typeddict

from retfound_dist.errors import FormatError, RecordError
from retfound_dist.io import storage
from retfound_dist.records.json_faults import MAX_LISTED, faults_of, line_fault, plain_message, value_text

T = TypeVar("T")
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
"""A number of things, of bytes or of steps."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A digest in hex."""
MAX_BYTES = 1 << 30
"""Most bytes of a file that is read."""
MAX_READINGS = 8
"""Most readings of a file that gives other bytes each time."""
BOM = b"\xef\xbb\xbf"
_FORMAT_1 = re.compile(rb'"format"\s*:\s*1\s*[,}]')
_LARGE_NUMBER = re.compile(rb"[:,\[]\s*-?\d[\d.]*(?:[eE]\+?\d{3}|\d{308})")
_LINE_END = b"\n"
_SMALL_BYTES = 1 << 16
"""Most bytes of a file that is read at once."""
_ZERO_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
"""Turns numbers into zeros, so that a long one is found without a pattern."""
_LONG_NUMBER, _LARGE_EXPONENT = b"0" * 200, b"0e000"
_BEFORE_NUMBER = b" \t\r\n:,[-"
"""Bytes that can stand before the digits of a number in JSON."""


@dataclass(frozen=True)
class BadLine:
    """A line that is not a valid row."""

    line: int
    """Counted from 1."""
    reason: str


@dataclass(frozen=True)
class Lines(Generic[T]):
    """The content of a JSON lines file."""

    where: str
    rows: list[T] = field(default_factory=list)
    """The good lines, in order."""
    total: int = 0
    bad: int = 0
    first_bad: tuple[BadLine, ...] = ()
    """The first MAX_LISTED bad ones."""
    is_incomplete: bool = False
    """Whether the last line is incomplete: its writer is still writing, or was killed."""
    unread_reason: str = ""
    """Why the file was not read at all."""

    @property
    def fault(self) -> str:
        """A sentence about the lines that are left out; empty where there are none."""
        if not self.bad:
            return self.unread_reason
        first = self.first_bad[0]
        return (
            f"{self.bad:,} of {self.total:,} lines of {self.where} cannot be read and are left out "
            f"(the first is line {first.line:,}: {first.reason})"
        )


def read(url: str, kind: type[T], remedy: str, *, format: int | None = None, limit: int = MAX_BYTES) -> T:
    """Read a JSON file as a value of a kind. It counts as damaged where two readings in a row agree.

    `remedy`: advice for a damaged file; empty: the caller adds its own. `format`: the required `format` of
    the file; None: the key may be missing, otherwise it must be 1. Raises StorageError where the file cannot
    be read, RecordError where it is damaged, FormatError where it is of another format.
    """
    data = _read_limited(url, limit)
    for _ in range(MAX_READINGS):
        try:
            return parse(data, kind, url, remedy, format=format)
        except RecordError:
            second_data = _read_limited(url, limit)
            if second_data == data:
                raise
            data = second_data
    return parse(data, kind, url, remedy, format=format)


def parse(data: bytes, kind: type[T], where: str, remedy: str, *, format: int | None = None) -> T:
    """Parse the bytes of a JSON file as a value of a kind. `where`: its name in messages."""
    if len(data) > MAX_BYTES:
        raise RecordError(f"{where} has more than {MAX_BYTES:,} bytes and is not read; {remedy}")
    data = data.removeprefix(BOM)
    if format is None and (fast_value := _parse_in_one_pass(data, kind)) is not None:
        return fast_value
    try:
        tree = _parse_tree(data)
        _check_format(tree, where, 1 if format is None else format, needed=format is not None)
        value: T = _adapter(kind).validate_json(data, strict=True)
        return tree if is_typeddict(kind) else value  # with its keys in their order
    except ValidationError as error:
        raise damage_error(where, faults_of(error, data), remedy) from error
    except ValueError as error:
        raise damage_error(where, str(error), remedy) from error


def _parse_in_one_pass(data: bytes, kind: type[T]) -> T | None:
    """A value of a kind that has `format`, in half the time; None where the file needs the whole check."""
    if not _has_format(kind) or b"NaN" in data or b"Infinity" in data or _may_overflow(data):
        return None
    # pydantic takes `true` for 1.
    if (count := data.count(b'"format"')) and (count > 1 or not _FORMAT_1.search(data)):
        return None
    try:
        value: T = _adapter(kind).validate_json(data, strict=True)
    except ValueError:
        return None  # the whole check reports the fault
    return value if getattr(value, "format") == 1 else None  # noqa: B009  of any kind


def _has_format(kind: Any) -> bool:
    """Whether a kind is a dataclass with a field `format`."""
    return "format" in getattr(kind, "__dataclass_fields__", {})


def parse_large(data: bytes, kind: type[T], where: str, remedy: str, *, format: int) -> T:
    """`parse` in one pass, for large files. The kind names every type, has `format`, and has no floats.

    Such a kind cannot hold NaN or infinity, so the whole file need not be parsed into a tree and searched.
    """
    try:
        value: T = _adapter(kind).validate_json(data.removeprefix(BOM), strict=True)
    except ValueError:
        return parse(data, kind, where, remedy, format=format)  # it reports the fault
    if len(data) > MAX_BYTES or getattr(value, "format") != format:  # noqa: B009  of any kind
        return parse(data, kind, where, remedy, format=format)
    return value


def damage_error(where: str, reason: str, remedy: str) -> RecordError:
    """The error for a file whose values contradict each other, in the same form as those of `parse`."""
    return RecordError(f"{where} is damaged: {reason}" + (f"; {remedy}" if remedy else ""))


def read_lines(url: str, kind: type[T], *, limit: int = MAX_BYTES) -> Lines[T]:
    """Read a file of JSON lines. Bad lines are counted and named, and are not an error. A missing file has no
    lines.

    Raises StorageError where the file cannot be read, RecordError where it is longer than `limit`.
    """
    return parse_lines(_read_limited(url, limit), kind, url) if storage.exists(url) else Lines(url)


def parse_lines(data: bytes, kind: type[T], where: str) -> Lines[T]:
    """Parse JSON lines. Bad lines are left out, counted and named; an incomplete last line is not bad."""
    texts = data.removeprefix(BOM).split(b"\n")
    last_text, rows, first_bad, bad, total = texts.pop(), list[T](), list[BadLine](), 0, 0
    validate, may_be_infinite = _adapter(kind).validate_json, b"NaN" in data or b"Infinity" in data
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        total += 1
        try:
            # Without a tree for most lines: the log of a long run has hundreds of thousands.
            row = validate(text, strict=True)
            if may_be_infinite or _has_infinite_number(row):
                _parse_tree(text)
            rows.append(row)
        except ValueError as error:
            bad += 1
            if len(first_bad) < MAX_LISTED:
                first_bad.append(BadLine(number, line_fault(error, text)))
    last_rows = parse_lines(last_text + b"\n", kind, where).rows if last_text.strip() else []
    return Lines(
        where,
        rows + last_rows,
        total=total + len(last_rows),
        bad=bad,
        first_bad=tuple(first_bad),
        is_incomplete=bool(last_text.strip()) and not last_rows,
    )


def _read_limited(url: str, limit: int) -> bytes:
    """The bytes of a file; RecordError if there are more than `limit`."""
    with storage.open_read(url) as file, storage.storage_errors(url, "read"):
        # A read first reserves memory for all bytes that it may return: for a small file this is most of the
        # time.
        data = bytes(file.read(min(_SMALL_BYTES, limit + 1)))
        if len(data) == _SMALL_BYTES:
            file.seek(0)  # not the rest alone: joining it would need twice the memory
            data = bytes(file.read(limit + 1))
    if len(data) > limit:
        raise RecordError(
            f"{url} has more than {limit:,} bytes and is not read: this software does not write such files"
        )
    return data


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """pydantic's validator of a kind, built once because building it is slow."""
    return _cached_adapter(kind)


@lru_cache(maxsize=64)
def _cached_adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _parse_tree(data: bytes) -> Any:
    """Parse JSON into plain values. Raises ValueError in plain words where it is invalid."""
    try:
        tree = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(plain_message(str(error), data)) from error
    # JSON has no infinity, but 1e999 is read as one, which `allow_inf_nan` does not refuse. Writing the tree
    # again is ten times as fast as a walk through all values. A text may hold the word too.
    if b"Infinity" in to_json(tree, inf_nan_mode="constants") and _has_infinite_number(tree):
        match = _LARGE_NUMBER.search(data)
        line = data.count(_LINE_END, 0, match.end() if match else None) + 1
        raise ValueError(f"line {line}: a number is too large")
    return tree


def _has_infinite_number(tree: Any) -> bool:
    """Whether parsed JSON holds an infinite number, which a parser makes of one that is too large (1e999).

    `tree`: plain values, or a value of a kind. The fields of its dataclasses are searched too.
    """
    remaining = [tree]
    while remaining:
        value = remaining.pop()
        if isinstance(value, float):
            if math.isinf(value):
                return True
        elif isinstance(value, list | tuple):
            remaining += value
        elif isinstance(value, dict):
            remaining += value.values()
        elif is_dataclass(value):
            remaining += [getattr(value, name) for name in value.__dataclass_fields__]
    return False


def _may_overflow(data: bytes) -> bool:
    """Whether JSON may have a number that is too large for a float: one of very many digits, or with an
    exponent of three digits."""
    zeros = data.translate(_ZERO_DIGITS, b"+.")
    if _LONG_NUMBER in zeros:
        return True
    # Digests have letters before such digits. Where this is unclear, the caller checks the number itself.
    *before, _ = zeros.split(_LARGE_EXPONENT)
    return any(text.rstrip(b"0")[-1:] in _BEFORE_NUMBER for text in before)


def _check_format(tree: Any, where: str, format: int, needed: bool) -> None:
    """FormatError where the file has another format, ValueError where it needs a format and has none."""
    if not isinstance(tree, dict) or ("format" not in tree and not needed):
        return
    if "format" not in tree:
        raise ValueError("line 1: format is missing")
    file_format = tree["format"]
    if type(file_format) is int and file_format == format:
        return
    raise FormatError(
        f"{where} has format {value_text(file_format)}, this version reads format {format}: "
        "use the version of this software that wrote it"
    )
