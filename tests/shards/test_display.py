"""Progress: plain lines without a terminal, nothing where it is quiet."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.commands import pack_command
from shards.display import progress_display
from tests.shards.pack_inputs import write_classes

PRESET = "configs/demo/pack.toml"


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    images = write_classes(tmp_path / "images", {"A": 6, "B": 4})
    (images / "A" / "bad.jpg").write_text("hi")
    return ["source.kind=folder", f"source.path={images}", f"out.url={tmp_path}/out"]


def test_progress_is_plain_lines_where_there_is_no_terminal(
    overrides: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.display.LINE_EVERY_S", 0.0)
    pack_command(PRESET, overrides)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[-1].startswith("packing 11 of 11 (")
    assert "\x1b" not in "".join(lines)


def test_quiet_says_nothing_and_the_rate_leaves_out_what_was_done_before(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.display.LINE_EVERY_S", 0.0)
    with progress_display("packing", "images", quiet=True) as progress:
        progress(1, 2)
    assert capsys.readouterr().err == ""
    with progress_display("verifying", "shards") as progress:
        progress(900, 1000)
        progress(900, 1000)
    first, second = capsys.readouterr().err.splitlines()
    assert first == second == "verifying 900 of 1,000 (0.0 shards/s)", "a pack that goes on has done none yet"


def test_no_line_comes_before_its_time_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.display.LINE_EVERY_S", 1e9)
    with progress_display("packing", "images") as progress:
        for done in range(1000):
            progress(done, 1000)
    assert capsys.readouterr().err == ""
