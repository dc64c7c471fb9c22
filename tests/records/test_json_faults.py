"""Faults of JSON files in words and by line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from typing_extensions import TypedDict

from retfound_dist.records.json_faults import (
    MAX_LISTED,
    MAX_SHOWN_LETTERS,
    faults_of,
    line_fault,
    line_of,
    plain_message,
    value_text,
)

TREE: dict[str, Any] = {
    "a": {'quoted " } ]': [1, [2, {"deep": None}]], "b": "x, {"},
    "list": [[], {}, "y"],
    "last": 1.5,
}


def parser_message(data: bytes) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        from_json(data, allow_inf_nan=False)
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"\0\0", "it contains only zero bytes"),
        (b'{"a": 1,\n"b": [1, 2', "line 2: it is cut off"),
        (b"{}\n\n{}", "line 3: there is text after its end"),
        (b'{\n"a":\n-Infinity}', "line 3: NaN and Infinity are not JSON"),
        (b"[" * 10_000, "line 1: it is nested too deep"),
    ],
)
def test_what_the_parser_says_is_said_in_words_with_its_line(data: bytes, words: str) -> None:
    assert plain_message(parser_message(data), data) == words


def leaves(tree: Any, place: tuple[int | str, ...] = ()) -> dict[tuple[int | str, ...], Any]:
    members = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    below = {key: value for name, child in members for key, value in leaves(child, (*place, name)).items()}
    return below or {place: tree}


@pytest.mark.parametrize("indent", [1, 4])
def test_the_line_of_every_value_is_where_it_begins(indent: int) -> None:
    text = json.dumps(TREE, indent=indent)
    lines = text.split("\n")
    for place, value in leaves(TREE).items():
        assert json.dumps(value) in lines[line_of(text, place) - 1], place


def test_the_line_of_a_missing_value_is_that_of_what_should_hold_it() -> None:
    text = json.dumps(TREE, indent=1)
    assert line_of(text, ("list", 7)) == line_of(text, ("list",))
    assert line_of(text, ("none",)) == 1


class Row(TypedDict):
    """A row of a file."""

    step: int


def validation_error(data: bytes, kind: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_json(data, strict=True)
    return caught.value


def test_the_first_faults_are_told_with_line_and_key_and_the_others_are_counted() -> None:
    data = json.dumps([{"step": 1}, *[{"step": "x"}] * (MAX_LISTED + 4), {}], indent=0).encode()
    message = faults_of(validation_error(data, list[Row]), data)
    assert message.count("line ") == MAX_LISTED
    assert message.startswith("line 6: [1].step is 'x': should be a valid integer, line 9: [2].step is 'x'")
    assert message.endswith(f"(and {8 - MAX_LISTED} more)")


def test_a_bad_row_is_told_without_a_line_which_its_file_gives() -> None:
    assert line_fault(validation_error(b"{}", Row), b"{}") == "step is missing"
    assert line_fault(validation_error(b'{"step": 1', Row), b'{"step": 1') == "it is cut off"
    assert line_fault(ValueError("line 1: a number is too large"), b"1e999") == "a number is too large"


@pytest.mark.parametrize("value", ["x" * 500, "\x1b[2J\n", 7, 1e300, None, [1] * 500, {"a": 1}])
def test_a_value_in_a_message_is_short_and_printable(value: Any) -> None:
    assert len(value_text(value)) <= MAX_SHOWN_LETTERS
    assert value_text(value).isprintable()
