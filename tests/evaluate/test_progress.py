from __future__ import annotations

import pytest

from retfound_dist.evaluate import progress
from retfound_dist.evaluate.progress import Display, clock, epoch_line


def test_without_a_terminal_it_prints_plain_lines_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_PLAIN_EVERY", -1.0)
    with Display() as show:
        show.begin("fine-tuning")
        show.advance(5, 10)
        show.say("[brackets] stay")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("fine-tuning: 5 of 10, ")
    assert lines[0].endswith(" left")
    assert lines[1] == "[brackets] stay"


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(quiet=True) as show:
        show.begin("fine-tuning")
        show.advance(5, 10)
        show.say("done")
    assert capsys.readouterr().out == ""


def test_times_read_as_a_person_says_them() -> None:
    assert [clock(s) for s in (4.4, 89, 200, 7500)] == ["4 s", "89 s", "3 min", "2 h 05 min"]


def test_an_epoch_without_val_says_only_the_training_loss() -> None:
    row = {"seed": 1, "epoch": 2, "train_loss": 0.5, "val_loss": None, "val_auroc": None, "seconds": 3.0}
    assert epoch_line(row, 5) == "seed 1 epoch 2/5: train loss 0.500  (3.0 s)"
