"""The one reader of JSON: every kind of damage is one line with its place; what is good is read."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import with_config
from typing_extensions import TypedDict

from retfound_dist.errors import FormatError, RecordError, StorageError
from retfound_dist.io import storage
from retfound_dist.records import json_reader
from retfound_dist.records.json_reader import Count, Sha256


@dataclass(frozen=True)
class Part:
    """A part of a file."""

    name: str
    bytes: Count


@dataclass(frozen=True)
class Whole:
    """A file."""

    parts: tuple[Part, ...]
    share: float
    sha256: Sha256
    note: str | None = None
    more: dict[str, Any] = field(default_factory=dict)


@with_config(extra="allow")
class Step(TypedDict):
    """A line of a log, with whatever else stands in it."""

    step: Count
    loss: float


GOOD: dict[str, Any] = {
    "format": 1,
    "parts": [{"name": "a", "bytes": 3}, {"name": "b", "bytes": 0}],
    "share": 1,
    "sha256": "0" * 64,
}
TEXT = json.dumps(GOOD, indent=1)


def changed(**values: Any) -> bytes:
    """The good file with other values."""
    return json.dumps({**GOOD, **values}, indent=1).encode()


def without(key: str) -> bytes:
    """The good file with a key less."""
    return json.dumps({name: value for name, value in GOOD.items() if name != key}, indent=1).encode()


DAMAGE = {
    "empty": (b"", "it is empty"),
    "white space": (b"\n\n", "it is empty"),
    "zero bytes": (b"\0" * 512, "only zero bytes"),
    "a list": (b"[]", "line 1: it is a list"),
    "null": (b"null", "line 1: it is null"),
    "a text": (b'"parts"', "line 1: it is 'parts'"),
    "a number": (b"3", "line 1: it is 3"),
    "an empty object": (b"{}", "format is missing"),
    "cut": (TEXT[:-20].encode(), "line 14: it is cut off"),
    "cut after a colon": (TEXT[: TEXT.index('"parts":') + 8].encode(), "line 3: a value is missing"),
    "cut in the first byte": (TEXT[:1].encode(), "line 1: it is cut off"),
    "two files in one": ((TEXT + TEXT).encode(), "line 15: there is text after its end"),
    "a comma too few": (TEXT.replace("],", "]").encode(), "line 13: expected"),
    "deep lists": (b"[" * 100_000, "line 1: it is nested too deep"),
    "deep objects": (b'{"a":' * 100_000, "line 1: it is nested too deep"),
    "deep and closed": (changed(more="@").replace(b'"@"', b"[" * 5000 + b"]" * 5000), "nested too deep"),
    "not UTF-8": (changed(note="@").replace(b"@", b"\xff\xfe"), "it is not UTF-8"),
    "UTF-16": (TEXT.encode("utf-16"), "line 1: expected value"),
    "half a surrogate": (changed(note="@").replace(b"@", rb"\ud800"), "line 15: "),
    "NaN": (changed(share="@").replace(b'"@"', b"NaN"), "line 13: NaN and Infinity are not JSON"),
    "Infinity": (changed(share="@").replace(b'"@"', b"-Infinity"), "NaN and Infinity are not JSON"),
    "NaN deep in a free part": (changed(more="@").replace(b'"@"', b"[[NaN]]"), "NaN and Infinity"),
    "a number beyond floats": (changed(share="@").replace(b'"@"', b"1e999"), "a number is too large"),
    "the same in a free part": (changed(more="@").replace(b'"@"', b'{"a": [1e999]}'), "too large"),
    "an integer beyond 64 bits": (
        changed(parts=[{"name": "a", "bytes": 1 << 70}]),
        "line 6: parts[0].bytes is 1180591620717411303424",
    ),
    "5,000 digits": (changed(share="@").replace(b'"@"', b"9" * 5000), "a number is too long"),
    "a negative count": (changed(parts=[{"name": "a", "bytes": -1}]), "line 6: parts[0].bytes is -1"),
    "a text for a number": (changed(share="1"), "line 13: share is '1'"),
    "true for a number": (changed(share=True), "line 13: share is true"),
    "a float for a count": (changed(parts=[{"name": "a", "bytes": 3.0}]), "parts[0].bytes is 3.0"),
    "a number for a text": (changed(note=7), "line 15: note is 7"),
    "an object for a list": (changed(parts={"name": "a"}), "line 3: parts is an object"),
    "a list for an object": (changed(parts=[["a", 3]]), "line 4: parts[0] is a list"),
    "null for a part": (changed(parts=None), "line 3: parts is null"),
    "no parts": (without("parts"), "line 1: parts is missing"),
    "no name in a part": (changed(parts=[{"bytes": 3}, {"bytes": 3}]), "line 4: parts[0].name is missing"),
    "no digest": (changed(sha256="0" * 63), "line 14: sha256 is '000000"),
    "no format": (without("format"), "format is missing"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_one_line_with_file_and_line_and_what_to_do(kind: str, tmp_path: Path) -> None:
    data, why = DAMAGE[kind]
    where = str(tmp_path / "whole.json")
    storage.write_bytes(where, data)
    with pytest.raises(RecordError) as caught:
        json_reader.read(where, Whole, "make it again", format=1)
    message = str(caught.value)
    assert message.startswith(f"{where} is damaged: ")
    assert why in message
    assert message.endswith("; make it again")
    assert "\n" not in message
    assert len(message) < 600
    assert not isinstance(caught.value, FormatError)


@pytest.mark.parametrize("cut", range(0, len(TEXT), 7))
def test_a_file_that_is_cut_anywhere_is_damaged(cut: int) -> None:
    with pytest.raises(RecordError, match="is damaged"):
        json_reader.parse(TEXT[:cut].encode(), Whole, "whole.json", "make it again", format=1)


@pytest.mark.parametrize("found", [2, 0, -1, "1", 1.0, True, None, [], "9" * 500])
def test_another_format_is_refused_before_anything_else_is_judged(found: Any) -> None:
    data = json.dumps({"format": found, "pieces": "of a later version"}).encode()
    with pytest.raises(FormatError, match=r"^w\.json has format .*this version reads format 1") as caught:
        json_reader.parse(data, Whole, "w.json", "make it again", format=1)
    assert "damaged" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_file_that_needs_no_format_may_have_the_first_and_no_other() -> None:
    assert json_reader.parse(without("format"), Whole, "w.json", "").share == 1
    assert json_reader.parse(changed(), Whole, "w.json", "").share == 1
    with pytest.raises(FormatError):
        json_reader.parse(changed(format=2), Whole, "w.json", "")


def test_an_unknown_key_of_a_later_version_is_no_damage() -> None:
    later = changed(parts=[{"name": "a", "bytes": 3, "colour": "red"}], mood={"deep": [1, None]})
    read = json_reader.parse(later, Whole, "w.json", "", format=1)
    assert read == Whole((Part("a", 3),), 1.0, "0" * 64)


def test_a_good_file_is_read_with_a_byte_order_mark_and_with_odd_names(tmp_path: Path) -> None:
    where = str(tmp_path / "w.json")
    storage.write_bytes(where, json_reader.BOM + changed(more={"é\n": "1e999", "NaN": [-1e300]}))
    read = json_reader.read(where, Whole, "", format=1)
    assert read.more == {"é\n": "1e999", "NaN": [-1e300]}


def test_many_faults_are_told_in_one_short_line() -> None:
    data = changed(parts=[{"name": n, "bytes": "x" * 500} for n in range(40)])
    with pytest.raises(RecordError) as caught:
        json_reader.parse(data, Whole, "w.json", "make it again", format=1)
    message = str(caught.value)
    assert "line 5: parts[0].name is 0" in message
    assert "line 6: parts[0].bytes is 'xx" in message
    assert "(and 77 more)" in message
    assert len(message) < 600


def test_a_key_with_control_characters_does_not_reach_the_terminal() -> None:
    with pytest.raises(RecordError) as caught:
        json_reader.parse(b'{"\\u001b[2J\\n": {"name": "a"}}', dict[str, Part], "w.json", "make it again")
    assert str(caught.value).isprintable()
    assert "bytes is missing" in str(caught.value)


def test_what_is_not_there_and_what_cannot_be_read_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nothing there"):
        json_reader.read(str(tmp_path / "none.json"), Whole, "make it again")
    with pytest.raises(StorageError, match="it is a folder"):
        json_reader.read(str(tmp_path), Whole, "make it again")


def test_a_file_beyond_all_measure_is_not_read(tmp_path: Path) -> None:
    where = tmp_path / "big.json"
    where.write_bytes(b"[")
    os.truncate(where, 5_000_000)
    with pytest.raises(RecordError, match=r"big\.json has more than 1,000 bytes"):
        json_reader.read(str(where), Whole, "make it again", limit=1000)


def test_what_was_damaged_on_the_way_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, fetched = str(tmp_path / "w.json"), []
    storage.write_bytes(where, changed())

    def flipped(url: str, limit: int) -> bytes:
        fetched.append(url)
        data = storage.read_bytes(url)
        return data.replace(b"parts", b"qarts") if len(fetched) == 1 else data

    monkeypatch.setattr(json_reader, "_read_limited", flipped)
    assert json_reader.read(where, Whole, "", format=1).share == 1
    assert len(fetched) == 2


def test_a_file_is_damaged_where_two_readings_are_alike_and_not_where_each_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, fetched = str(tmp_path / "w.json"), []
    storage.write_bytes(where, changed())

    def flipped(url: str, limit: int) -> bytes:
        fetched.append(url)
        return b"{" * len(fetched) if len(fetched) < 4 else storage.read_bytes(url)

    monkeypatch.setattr(json_reader, "_read_limited", flipped)
    assert json_reader.read(where, Whole, "", format=1).share == 1
    assert len(fetched) == 4


LINE = b'{"step": 1, "loss": 0.5}'
BAD_LINES = {
    b"[]": "it is a list",
    b"null": "it is null",
    b"{}": "step is missing",
    b'{"step": 1}': "loss is missing",
    b'{"step": "1", "loss": 0.5}': "step is '1'",
    b'{"step": -1, "loss": 0.5}': "step is -1",
    b'{"step": 1, "loss": NaN}': "NaN and Infinity are not JSON",
    b'{"step": 1, "loss": 1e999}': "a number is too large",
    b'{"step": 1, "loss": 0.5, "more": [{"a": 1e999}]}': "a number is too large",
    b'{"step": 1, "loss": 0.5, "more": -Infinity}': "NaN and Infinity are not JSON",
    b'{"step": 1, "loss"': "it is cut off",
    LINE[:-3] + b"\xff}": "",
    LINE + LINE: "there is text after its end",
    b"[" * 100_000: "it is nested too deep",
    b"\0" * 40: "it contains only zero bytes",
}


@pytest.mark.parametrize("bad", BAD_LINES, ids=lambda bad: bad[:30].decode(errors="replace"))
def test_a_bad_line_is_counted_and_named_and_the_others_are_read(bad: bytes, tmp_path: Path) -> None:
    where = str(tmp_path / "log.jsonl")
    storage.write_bytes(where, b"\n".join([LINE, b'{"step": 2, "loss": 3, "mfu": [1]}', bad, bad, LINE, b""]))
    log = json_reader.read_lines(where, Step)
    assert log.rows == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 3.0, "mfu": [1]},
        {"step": 1, "loss": 0.5},
    ]
    assert (log.total, log.bad, log.is_incomplete) == (5, 2, False)
    assert [each.line for each in log.first_bad] == [3, 4]
    assert log.fault.startswith(
        f"2 of 5 lines of {where} cannot be read and are left out (the first is line 3: "
    )
    assert BAD_LINES[bad] in log.fault
    assert "\n" not in log.fault


def test_a_last_line_without_an_end_counts_where_it_is_whole_and_is_cut_where_it_is_not() -> None:
    whole = json_reader.parse_lines(LINE + b"\n" + LINE, Step, "log")
    assert (len(whole.rows), whole.is_incomplete, whole.bad, whole.fault) == (2, False, 0, "")
    cut = json_reader.parse_lines(LINE + b"\n" + LINE[:9], Step, "log")
    assert (len(cut.rows), cut.is_incomplete, cut.bad, cut.fault) == (1, True, 0, "")


def test_no_log_and_blank_lines_are_no_damage(tmp_path: Path) -> None:
    assert json_reader.read_lines(str(tmp_path / "none.jsonl"), Step).rows == []
    blank = json_reader.parse_lines(b"\n\n  \n" + LINE + b"\r\n", Step, "log")
    assert (len(blank.rows), blank.total, blank.bad) == (1, 1, 0)


def test_a_thousand_bad_lines_are_counted_and_few_are_kept() -> None:
    log = json_reader.parse_lines(b"x\n" * 1000 + LINE + b"\n", Step, "log")
    assert (len(log.rows), log.bad, len(log.first_bad)) == (1, 1000, 3)


def test_lines_can_be_plain_dataclasses() -> None:
    log = json_reader.parse_lines(b'{"name": "a", "bytes": 1}\n{"name": "b"}\n', Part, "log")
    assert log.rows == [Part("a", 1)]
    assert log.bad == 1


@dataclass(frozen=True)
class Versioned:
    """A file whose kind names its format: it is read in one pass."""

    format: Literal[1] = 1
    digest: str = ""
    share: float = 0.0
    more: dict[str, Any] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"share": 1e999}', "line 1: a number is too large"),
        ('{"share":-1E+999}', "line 1: a number is too large"),
        ('{\n"more": {"a": [0.5,\n 1e400]}}', "line 3: a number is too large"),
        ('{"a later key": 1.5e309}', "line 1: a number is too large"),
        ('{"more": {"a": ' + "9" * 300 + "e99}}", "a number is too large"),
        ('{"a later key": NaN}', "NaN and Infinity are not JSON"),
        ('{"more": {"a": -Infinity}}', "NaN and Infinity are not JSON"),
        ('{"share": "1"}', "share is '1'"),
        ('{"format": 2, "share": "1"}', "has format 2, this version reads format 1"),
        ('{"format": true}', "has format true"),
        ('{"format": 1.0}', "has format 1.0"),
        ('{"more": {"format": 1}, "format": true}', "has format true"),
        ('{"share": 1} {}', "there is text after its end"),
    ],
)
def test_a_kind_that_names_its_format_is_read_as_strictly_as_others(text: str, reason: str) -> None:
    with pytest.raises((RecordError, FormatError), match=re.escape(reason)):
        json_reader.parse(text.encode(), Versioned, "a.json", "")


@pytest.mark.parametrize("number", ["1e300", "1E+0308", "5e-999", "0." + "3" * 400, "123456e000"])
def test_large_and_long_numbers_that_are_finite_are_read(number: str) -> None:
    text = '{"share": %s, "digest": "12e999", "more": {"say": "Infinity, NaN: 1e999", "number": %s}}'
    value = json_reader.parse((text % (number, number)).encode(), Versioned, "a.json", "")
    assert value.share == value.more["number"] == float(number)
    assert (value.digest, value.more["say"]) == ("12e999", "Infinity, NaN: 1e999")


def test_a_file_longer_than_one_read_is_read_whole(tmp_path: Path) -> None:
    where = str(tmp_path / "a.json")
    storage.write_json(where, {"digest": "0123456789" * 50_000})
    assert json_reader.read(where, Versioned, "").digest == "0123456789" * 50_000
    with pytest.raises(RecordError, match="more than 400,000 bytes"):
        json_reader.read(where, Versioned, "", limit=400_000)


@dataclass(slots=True)
class SlottedRow:
    """A kind without `__dict__`."""

    loss: float


def test_a_number_that_is_too_large_is_found_in_a_slotted_kind() -> None:
    lines = json_reader.parse_lines(b'{"loss": 1e999}\n{"loss": 1.5}\n', SlottedRow, "log.jsonl")
    assert [row.loss for row in lines.rows] == [1.5]
    assert lines.bad == 1
