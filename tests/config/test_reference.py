"""Every config key is discoverable: at the prompt, in docs/config.md, behind the tab key."""

import json

import pytest

from retfound_dist.cli import main
from retfound_dist.config.loading import key_names
from retfound_dist.config.reference import COMMANDS, keys_of
from tests import ROOT


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
    output = capsys.readouterr().out
    assert "train.zero_stage" in output
    assert "phantom" not in output
    assert main(["show", "nonsense", "--keys"]) == 2
    assert main(["show"]) == 2
