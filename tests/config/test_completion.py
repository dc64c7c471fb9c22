"""What the tab key offers, in a shell of the user's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from retfound_dist.cli import main
from tests import ROOT


def complete(line: str, tmp_path: Path) -> list[str]:
    """What the shell is offered behind a line."""
    out = tmp_path / "offered"
    env = os.environ | {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9", "_ARGCOMPLETE_STDOUT_FILENAME": str(out),
    }  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "retfound_dist"], env=env, cwd=ROOT, check=True, capture_output=True
    )
    return [text.strip() for text in out.read_text().splitlines()]


def test_the_tab_key_offers_commands_keys_and_files(tmp_path: Path) -> None:
    assert {"plan", "pretrain", "pack"} <= set(complete("retfound p", tmp_path))
    keys = complete("retfound pretrain configs/pretrain_vitl_oct.toml optim.b", tmp_path)
    assert keys == ["optim.base_lr=", "optim.betas="]
    assert "configs/pretrain_seed.toml" in complete("retfound plan configs/pretrain_s", tmp_path)
    assert complete("retfound show --keys pre", tmp_path) == ["pretrain"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_code_that_names_the_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "retfound" in capsys.readouterr().out


def test_bash_takes_the_code() -> None:
    code = 'eval "$(python -m retfound_dist completion bash)"; complete -p retfound'
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=env)
    assert "_python_argcomplete" in done.stdout
