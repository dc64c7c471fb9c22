"""The pieces of `make bench-gpu` go on where they were stopped, and a piece that hangs is ended."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu_hour import PIECES_FILE, Piece, pieces, rows_of, run_all


def note(name: str, code: int = 0) -> list[str]:
    """A piece that notes that it ran, in the file `name`."""
    text = f"import sys; open({name!r}, 'a').write('x'); sys.exit({code})"
    return [sys.executable, "-c", text]


def test_finished_pieces_are_not_repeated_and_failed_ones_are(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("one", "two", "three")]
    every = [
        Piece("one", note(files[0])),
        Piece("two", note(files[1], 1)),
        Piece("three", note(files[2], 1), ok=(0, 1)),
    ]
    for _ in range(2):
        entries = run_all(every, tmp_path / "out", one=False)
    assert [Path(file).read_text() for file in files] == ["x", "xx", "x"]
    assert [entries[piece.name]["status"] for piece in every] == ["finished", "failed", "finished"]
    assert [row.spread for row in rows_of(every, {})] == ["not begun"] * 3


def test_one_piece_at_a_time_in_order(tmp_path: Path) -> None:
    every = [Piece(name, note(str(tmp_path / name))) for name in ("a", "b")]
    assert set(run_all(every, tmp_path / "out", one=True)) == {"a"}
    assert set(run_all(every, tmp_path / "out", one=True)) == {"a", "b"}


def test_a_piece_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    child = "import os, time; open('PID', 'w').write(str(os.getpid())); time.sleep(100)".replace(
        "PID", str(tmp_path / "pid")
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    began = time.monotonic()
    entries = run_all(
        [Piece("hangs", [sys.executable, "-c", parent])], tmp_path / "out", one=False, longest_s=3
    )
    assert entries["hangs"]["status"] == "unfinished"
    assert time.monotonic() - began < 60
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert json.loads((tmp_path / "out" / PIECES_FILE).read_text())["hangs"]["exit"] is None


def test_every_piece_is_a_command_of_this_repository(tmp_path: Path) -> None:
    names = [piece.name for piece in pieces(tmp_path, small=False, images=tmp_path)]
    assert names == ["shards", "doctor", "train", "loader", "checkpoint", "help"]
    small = pieces(tmp_path, small=True, images=None)
    assert [piece.name for piece in small] == names[:-1]
    assert all(piece.command[:2] == [sys.executable, "-m"] for piece in small)
