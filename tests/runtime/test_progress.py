from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys

import pytest
from rich.console import Console

from retfound_dist.runtime import progress
from retfound_dist.runtime.progress import ProgressDisplay, epoch_line, shorten, show_progress


@pytest.fixture
def clock_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the display reads, in a list to be changed."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_it_prints_plain_lines_now_and_then(
    capsys: pytest.CaptureFixture[str], clock_s: list[float]
) -> None:
    with ProgressDisplay() as show:
        show.begin("fine-tuning")
        clock_s[0] += 50
        show.advance(5, 10, "epoch 1/2")
        show.say("[brackets] stay")
    assert capsys.readouterr().out.splitlines() == [
        "fine-tuning: 5 of 10, epoch 1/2, 50 s left",
        "[brackets] stay",
    ]


def test_plain_lines_begin_after_five_seconds_and_then_come_every_ten_and_at_the_end(
    capsys: pytest.CaptureFixture[str], clock_s: list[float]
) -> None:
    with ProgressDisplay() as show:
        show.begin("bootstrap")
        for done in range(1, 31):
            clock_s[0] += 1
            show.advance(done, 30)
        show.begin("reading", since=clock_s[0] - 6)
        show.advance(1, 2)
        show.begin("writing")
        show.advance(2, 2)
    assert [line.split(" of")[0] for line in capsys.readouterr().out.splitlines()] == [
        "bootstrap: 6", "bootstrap: 17", "bootstrap: 28", "bootstrap: 30", "reading: 1",
    ]  # fmt: skip


def test_the_rate_counts_only_the_work_of_this_process(
    capsys: pytest.CaptureFixture[str], clock_s: list[float]
) -> None:
    """A pack that goes on begins with thousands done: counting them would promise an end far too early."""
    with show_progress("packing", "images") as report:
        clock_s[0] += 60  # what was packed before is read
        report(900, 2000)
        clock_s[0] += 11
        report(910, 2000)
        clock_s[0] += 11
        report(1010, 2000)
    assert capsys.readouterr().err.splitlines() == [
        "packing: 900 of 2,000 images",
        "packing: 910 of 2,000 images, 0.9 images/s",
        "packing: 1,010 of 2,000 images, 5.0 images/s, 3 min left",
    ]


def test_the_last_line_has_the_rate_of_the_whole_however_short_the_task(
    capsys: pytest.CaptureFixture[str], clock_s: list[float]
) -> None:
    with ProgressDisplay(first_line_s=0.0) as show:
        show.begin("packing", "images")
        for done in (4, 8):
            clock_s[0] += 0.25
            show.advance(done, 8)
    assert capsys.readouterr().out.splitlines() == [
        "packing: 4 of 8 images",
        "packing: 8 of 8 images, 16 images/s, 0 s left",
    ]


def test_a_task_of_a_moment_prints_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("packing", "images") as report:
        for done in range(1, 1001):
            report(done, 1000)
    assert capsys.readouterr().err == ""


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay(quiet=True) as show:
        show.begin("fine-tuning")
        show.advance(5, 10)
        show.say("done")
        show.warn("wrong")
    with show_progress("packing", "images", quiet=True) as report:
        report(1, 2)
    assert capsys.readouterr() == ("", "")


def test_a_rank_that_is_quiet_prints_its_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay(quiet=True, stderr=True, warn_when_quiet=True) as show:
        show.say("done")
        show.warn("wrong")
    assert capsys.readouterr() == ("", "wrong\n")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is written to a terminal of 80 columns."""
    out = io.StringIO()
    monkeypatch.setattr(
        progress,
        "Console",
        lambda **more: Console(**more | {"file": out, "force_terminal": True, "width": 80}),
    )
    return out


def lines_on(terminal: io.StringIO) -> list[str]:
    return [re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text) for text in re.split(r"[\r\n]", terminal.getvalue())]


def test_a_live_line_stays_one_line_of_80_columns(terminal: io.StringIO, clock_s: list[float]) -> None:
    with ProgressDisplay() as show:
        show.begin("fine-tuning s3://bucket/with/a/long/path/runs/vitl/checkpoints/step_00000100, seed 0")
        for done in (1, 500, 999):
            clock_s[0] += 100
            show.advance(done, 1000, "epoch 3/50")
            show._bar.refresh()
        show.begin("bootstrap")
        show._bar.refresh()
    lines = lines_on(terminal)
    assert all(len(line) <= 80 for line in lines)
    assert any(
        "fine-tuning …" in line and "seed 0 epoch 3/50" in line and "999/1,000  0 s left" in line
        for line in lines
    )
    assert any(line.startswith("bootstrap") and "left" not in line and "?" not in line for line in lines)


def test_a_terminal_gets_colours_and_cursor_moves_as_they_are() -> None:
    """Behind the filter of all output, which replaces the control characters of other texts by `?`."""
    code = """
from retfound_dist.runtime.progress import show_progress
from retfound_dist.runtime.terminal import filtered_output
with filtered_output(), show_progress("packing", "images") as report:
    for done in range(1, 4):
        report(done, 3)
"""
    here, there = pty.openpty()
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80"}
    subprocess.run([sys.executable, "-c", code], stdout=there, stderr=there, env=env, check=True, timeout=60)
    os.close(there)
    shown = os.read(here, 65536).decode()
    os.close(here)
    assert "\x1b[2K" in shown
    assert "3/3 images" in shown
    assert "?[" not in shown


def test_details_stand_below_the_live_line_instead_of_the_note(terminal: io.StringIO) -> None:
    with ProgressDisplay() as show:
        show.begin("pretraining", "steps")
        show.advance(
            81600,
            81600,
            "loss 0.4123",
            rate="38,123 images/s",
            left_s=80_000,
            details=("epoch 799.99   loss 0.4123", "x" * 100),
        )
        show._bar.refresh()
    lines = lines_on(terminal)
    assert all(len(line) <= 80 for line in lines)
    (bar, first, second) = lines[-5:-2] if "pretraining" in lines[-5] else lines[-4:-1]
    assert bar.startswith("pretraining")
    assert "81,600/81,600 steps  38,123 images/s  22.2 h left" in bar
    assert "loss" not in bar
    assert first.strip() == "epoch 799.99   loss 0.4123"
    assert second == "x" * 80


def test_a_long_name_keeps_its_first_word_and_its_end() -> None:
    assert shorten("reading /a/b/c", 40) == "reading /a/b/c"
    assert shorten("reading /a/long/way/down/set", 20) == "reading …ay/down/set"
    assert len(shorten("x" * 50, 20)) == 20


def test_an_epoch_without_val_says_only_the_training_loss() -> None:
    row = {"seed": 1, "epoch": 2, "train_loss": 0.5, "val_loss": None, "val_auroc": None, "seconds": 3.0}
    assert epoch_line(row, 5) == "seed 1 epoch 2/5: train loss 0.500  (3.0 s)"
