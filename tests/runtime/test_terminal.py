"""What is printed cannot give a terminal orders, whoever wrote it."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from retfound_dist.runtime.terminal import FilteringStream, RichStream, without_controls

ORDERS = {
    "clear": "a\x1b[2Jb", "title": "a\x1b]0;owned\x07b", "clipboard": "a\x1b]52;c;ZXZpbA==\x07b", "return": "good\rbad",
    "backspace": "good\b\b\b\bbad", "bell": "a\x07", "bidi": "a\u202egpj.exe", "isolate": "a\u2066b\u2069", "c1": "a\x9b2Jb",
    "line separator": "a\u2028b", "zero width": "pay\u200bpal", "null": "a\0b",
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
def test_no_order_reaches_a_terminal(order: str) -> None:
    stream = io.StringIO()
    print(ORDERS[order], file=FilteringStream(stream))  # type: ignore[arg-type]
    assert "?" in stream.getvalue()
    assert stream.getvalue()[:-1].isprintable()
    assert stream.getvalue().count("\n") == 1


def test_other_languages_tables_and_bars_stay_as_they_are() -> None:
    for text in ("張伟 Łódź é 정상 שלום", "a\n\tb", "\r 10 %|###", "\udcff of bytes"):
        assert without_controls(text) == text
    stream = io.StringIO()
    RichStream(stream).write("\x1b[1;32mrun\x1b[0m\x1b[2K\r\x1b[1A \x1b]52;c;x\x07\u202e")
    assert stream.getvalue() == "\x1b[1;32mrun\x1b[0m\x1b[2K\r\x1b[1A ?]52;c;x??"


def test_a_run_s_name_with_orders_is_told_on_a_real_terminal_without_them(tmp_path: Path) -> None:
    folder = tmp_path / "evil\x1b]0;owned\x07\u202erun"
    folder.mkdir()
    (folder / "config.json").write_text("[]")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "retfound_dist", "runs", str(tmp_path)]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        output = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # how Linux says that the other side has closed
                break
            if not piece:
                break
            output += piece
    os.close(ours)
    assert process.returncode in (0, 1)
    assert b"evil" in output
    for order in (b"\x1b]", b"\x07", "\u202e".encode()):
        assert order not in output
