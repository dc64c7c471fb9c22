from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from retfound_dist.runtime import progress
from retfound_dist.runtime.progress import ProgressDisplay, epoch_line, shorten


def test_without_a_terminal_it_prints_plain_lines_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_PLAIN_EVERY", -1.0)
    with ProgressDisplay() as show:
        show.begin("fine-tuning")
        show.advance(5, 10)
        show.say("[brackets] stay")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("fine-tuning: 5 of 10, ")
    assert lines[0].endswith(" left")
    assert lines[1] == "[brackets] stay"


def test_plain_lines_begin_after_five_seconds_and_then_come_every_twenty(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_s = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock_s[0])
    with ProgressDisplay() as show:
        show.begin("bootstrap")
        for done in range(1, 60):
            clock_s[0] += 1
            show.advance(done, 60)
        show.begin("reading", since=clock_s[0] - 6)
        show.advance(1, 2)
    assert [line.split(" of")[0] for line in capsys.readouterr().out.splitlines()] == [
        "bootstrap: 6", "bootstrap: 27", "bootstrap: 48", "reading: 1",
    ]  # fmt: skip


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay(quiet=True) as show:
        show.begin("fine-tuning")
        show.advance(5, 10)
        show.say("done")
    assert capsys.readouterr().out == ""


def test_a_live_line_stays_one_line_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        progress,
        "Console",
        lambda **more: Console(**more | {"file": out, "force_terminal": True, "width": 80}),
    )
    out = io.StringIO()
    with ProgressDisplay() as show:
        show.begin("fine-tuning s3://bucket/with/a/long/path/runs/vitl/checkpoints/step_00000100, seed 0")
        for done in (1, 500, 999):
            show.advance(done, 1000, "epoch 3/50")
            show._progress.refresh()
        show.begin("bootstrap")
        show._progress.refresh()
    lines = [re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text) for text in re.split(r"[\r\n]", out.getvalue())]
    assert all(len(line) <= 80 for line in lines)
    assert any(
        "fine-tuning …" in line and "seed 0 epoch 3/50" in line and "999/1000" in line for line in lines
    )
    assert any(line.startswith("bootstrap") and "left" not in line and "?" not in line for line in lines)


def test_a_long_name_keeps_its_first_word_and_its_end() -> None:
    assert shorten("reading /a/b/c", 40) == "reading /a/b/c"
    assert shorten("reading /a/long/way/down/set", 20) == "reading …ay/down/set"
    assert len(shorten("x" * 50, 20)) == 20


def test_an_epoch_without_val_says_only_the_training_loss() -> None:
    row = {"seed": 1, "epoch": 2, "train_loss": 0.5, "val_loss": None, "val_auroc": None, "seconds": 3.0}
    assert epoch_line(row, 5) == "seed 1 epoch 2/5: train loss 0.500  (3.0 s)"
