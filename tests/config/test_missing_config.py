"""key=value or a folder where CONFIG.toml belongs: one line with the command that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.cli import main


@pytest.mark.parametrize(
    "command", ["pack", "show", "plan", "pretrain", "evaluate", "watch", "compare", "suite"]
)
def test_a_forgotten_config_is_said_with_the_whole_command(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command, "a.b=x", "c.d=y"]) == 2
    message = capsys.readouterr().err
    assert f"{command}: CONFIG.toml is missing: a.b=x is given instead" in message
    assert f"retfound {command} configs/" in message
    assert message.rstrip().endswith(".toml a.b=x c.d=y")
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_config_in_the_wrong_place_is_put_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", "source.path=x", "own.toml", "out.url=y"]) == 2
    assert "Put it first: retfound pack own.toml source.path=x out.url=y" in capsys.readouterr().err


def test_a_folder_of_images_in_its_place_is_given_as_the_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pack", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert f"{tmp_path} is a folder, not a CONFIG.toml" in message
    assert f"retfound pack configs/pack_folder.toml source.path={tmp_path} out.url=SHARDS" in message
