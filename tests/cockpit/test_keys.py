"""Every config key is discoverable: at the prompt, in docs/config.md, behind the tab key."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.cockpit import manual
from retfound_dist.cockpit.keys import COMMANDS, keys_of
from retfound_dist.config import key_names

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_has_name_type_default_and_meaning(command: str) -> None:
    keys = list(keys_of(COMMANDS[command]))
    assert [key.name for key in keys] == key_names(COMMANDS[command])
    for key in keys:
        assert min(map(len, (key.type, key.default, key.meaning))) > 0, key
        assert "typing" not in key.type, key
        assert key.type[0] != "<", key


def test_units_and_sources_are_told_where_there_are_any() -> None:
    keys = {key.name: key for key in keys_of(COMMANDS["pretrain"])}
    assert keys["data.cache_gb"].unit.startswith("GB")
    assert keys["data.patience_s"].unit == "s"
    assert keys["optim.warmup_epochs"].unit == "epochs"
    assert "MAE" in keys["model.norm_pix_loss"].source
    assert "MAE, table 8" in keys["optim.weight_decay"].source
    assert keys["optim.base_lr"].default == "0.00015"
    assert keys["run.url"].default == "required"
    assert keys["data.shards"].unit == ""


def test_show_keys_prints_those_of_a_command_or_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "--keys"]) == 0
    assert "phantom.patients" in capsys.readouterr().out
    assert main(["show", str(ROOT / "configs/evaluate_octid.toml"), "--keys", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["evaluate"]
    assert main(["show", "pretrain", "--keys"]) == 0
    said = capsys.readouterr().out
    assert "train.zero_stage" in said
    assert "phantom" not in said
    assert main(["show", "nonsense", "--keys"]) == 2
    assert main(["show"]) == 2


def test_pages_made_by_commands_are_as_the_code_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m retfound_dist.cockpit.manual` makes them anew."""
    stale = [path.name for path, text in manual.pages() if not path.exists() or path.read_text() != text]
    assert not stale, "run: make docs"


def test_a_page_that_was_changed_by_hand_is_noticed() -> None:
    page = (ROOT / "docs/plan.md").read_text()
    assert len(manual.MADE.findall(page)) == 4
    assert manual.made_anew(page.replace("81,688 steps", "81,689 steps")) == page


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
