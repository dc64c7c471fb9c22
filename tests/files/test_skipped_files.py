"""Counts of what was passed over: bounded in memory, in lines, and in files that are opened."""

from __future__ import annotations

from retfound_dist.files.skipped_files import (
    MOST_KINDS,
    MOST_LINES,
    MOST_OPENED,
    SkippedFiles,
    extension_of,
    is_hidden,
)


def test_a_million_files_of_many_extensions_take_few_kinds_and_few_lines() -> None:
    passed = SkippedFiles()
    for number in range(5_000):
        passed.add_file(f"f.{number:x}z", lambda: b"")
    assert len(passed) == 5_000
    assert len(passed._kinds) <= MOST_KINDS + 1
    lines = passed.lines()
    assert len(lines) == MOST_LINES + 1
    assert sum(int(line.split()[2].replace(",", "")) for line in lines) == 5_000


def test_of_many_files_without_an_extension_only_some_are_opened() -> None:
    opened, passed = [], SkippedFiles()

    def head() -> bytes:
        opened.append(1)
        return bytes(128) + b"DICM"

    for number in range(3 * MOST_OPENED):
        passed.add_file(f"IM{number:06d}", head)
    assert len(opened) == MOST_OPENED
    assert passed.count("dicom") == 3 * MOST_OPENED


def test_a_table_that_is_not_read_says_which_one_would_be() -> None:
    """A list a level too deep knows patients that nobody is told of."""
    passed = SkippedFiles()
    for name in ("octdl/manifest.csv", "octid/Labels.XLSX"):
        passed.add_file(name, bytes)
    (line,) = passed.lines()
    assert line.startswith(
        "passed over: 2 tables, such as octdl/manifest.csv: not read. Labels and patients are read from"
    )


def test_names_are_left_out_where_they_may_be_of_people() -> None:
    passed = SkippedFiles()
    passed.add_file("Jane Doe 1970.pdf", bytes)
    assert passed.lines(named=False) == ["passed over: 1 file .pdf: not an image"]


def test_an_example_is_one_short_printable_line() -> None:
    passed = SkippedFiles()
    passed.add_file("a/" + "x\n" * 500 + ".npy", bytes)
    (line,) = passed.lines()
    assert line.isprintable()
    assert len(line) < 300


def test_numbers_are_no_extension_and_hidden_names_are_known() -> None:
    assert [extension_of(name) for name in ("1.2.840.5", "a.Tar", "b", "c.")] == [".", ".tar", ".", "."]
    assert all(map(is_hidden, ("._a.jpg", ".git", "Thumbs.db", "DESKTOP.INI", "__MACOSX")))
