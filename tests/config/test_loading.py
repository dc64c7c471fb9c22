from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.config.loading import differences, flatten, load, parse_override, to_dict
from retfound_dist.config.schema import CompareConfig, PackConfig, PretrainConfig
from retfound_dist.errors import ConfigError

PACK = '[source]\nkind = "phantom"\n[out]\nurl = "here"\n'
PRETRAIN = '[run]\nurl = "r"\n[data]\nshards = "s"\n[train]\nsteps = 5\n'


def write(folder: Path, text: str) -> str:
    (folder / "c.toml").write_text(text)
    return str(folder / "c.toml")


def refused(folder: Path, *overrides: str, kind: type = PretrainConfig, text: str = PRETRAIN) -> str:
    with pytest.raises(ConfigError) as caught:
        load(kind, write(folder, text), overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_value_says_where_it_comes_from(tmp_path: Path) -> None:
    path = write(tmp_path, PACK)
    config, origins = load(PackConfig, path, ["out.shard_mb=2", "split.fractions=[0.5, 0.5, 0]"])
    assert (config.out.url, config.out.shard_mb, config.split.fractions) == ("here", 2.0, (0.5, 0.5, 0.0))
    assert origins["out.url"] == path
    assert origins["out.shard_mb"] == "command line"
    assert origins["out.seed"] == "default"
    assert origins.keys() == dict(flatten(to_dict(config))).keys()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("run.url=a/b c", "a/b c"),
        ('run.url="a/b"', "a/b"),
        ("run.url=s3://b/x", "s3://b/x"),
        ("run.url=5", "5"),
        ("optim.base_lr=3e-4", 3e-4),
        ("train.steps=7", 7),
        ("optim.betas=[0.9, 0.99]", [0.9, 0.99]),
        ("train.precision=fp32", "fp32"),
    ],
)
def test_overrides_are_toml_or_plain_text_where_text_is_wanted(text: str, value: Any) -> None:
    assert parse_override(PretrainConfig, text) == (text.split("=")[0], value)


def test_an_override_may_give_what_the_file_lacks(tmp_path: Path) -> None:
    config, _ = load(PackConfig, write(tmp_path, ""), ["out.url=there", "source.path=5"])
    assert (config.out.url, config.source.path) == ("there", "5")


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("train.global_bach=8", "train.global_batch"),
        ("optm.base_lr=1", "optim"),
        ("data.shard=x", "data.shards"),
    ],
)
def test_an_unknown_key_names_its_nearest_neighbour(tmp_path: Path, override: str, near: str) -> None:
    message = refused(tmp_path, override)
    assert f"unknown key {override.split('=')[0].split('.')[0]}" in message
    assert f"did you mean {near}" in message


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.global_batch=many", "train.global_batch='many' should be a valid integer"),
        ("train.global_batch=0", "train.global_batch=0 should be greater than 0"),
        ("train.global_batch=1.5", "train.global_batch=1.5"),
        ("train.precision=fp16", "train.precision='fp16' should be 'bf16' or 'fp32'"),
        ("model.mask_ratio=1.0", "model.mask_ratio=1.0 should be less than 1"),
        ("train.epochs=0", "train.steps=0 and train.epochs=0: give exactly one"),
        ("optim.betas=[0.9]", "optim.betas"),
        (
            "data.crop_scale=[1.0, 0.2]",
            "data.crop_scale=[1.0, 0.2] should rise: give the smaller number first",
        ),
        ("data.crop_scale=[0.0, 0.2]", "data.crop_scale.0=0.0 should be greater than 0"),
        ("data.crop_ratio=[2.0, 1.0]", "data.crop_ratio=[2.0, 1.0] should rise"),
        ("train.profile_steps=[5, 2]", "train.profile_steps=[5, 2] should rise"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_wanted(tmp_path: Path, override: str, said: str) -> None:
    assert said in refused(tmp_path, override)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, "train.micro_batch=0", "data.workers=-1", "train.nope=1")
    assert all(key in message for key in ("train.micro_batch=0", "data.workers=-1", "unknown key train.nope"))


def test_a_missing_key_says_how_to_give_it(tmp_path: Path) -> None:
    message = refused(tmp_path, "run.url=r", text="[train]\nsteps = 1\n[data]\n")
    assert "data.shards is missing: set it in the file or give data.shards=... on the command line" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [("train.steps", "is not key=value"), ("=5", "is not key=value"), ("run.url.x=5", "run.url")],
)
def test_an_override_of_the_wrong_shape_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_a_file_that_is_missing_or_no_toml_is_one_line(tmp_path: Path) -> None:
    assert "is not TOML" in refused(tmp_path, text="[run\n")
    with pytest.raises(ConfigError, match=r"none\.toml.*there is nothing there"):
        load(PackConfig, str(tmp_path / "none.toml"))


@pytest.mark.parametrize("fractions", ["[0.6, 0.6, 0.2]", "[1.2, -0.2, 0]", "[0.5, 0.5]"])
def test_fractions_that_are_no_shares_are_refused(tmp_path: Path, fractions: str) -> None:
    assert "split.fractions" in refused(tmp_path, f"split.fractions={fractions}", kind=PackConfig, text=PACK)


def test_rows_of_a_comparison_can_be_given_on_the_command_line(tmp_path: Path) -> None:
    text = '[weights]\nscratch = "none"\n[data]\npath = "p"\n[out]\nurl = "o"\n'
    config, _ = load(CompareConfig, write(tmp_path, text), ["weights.ours=runs/x/step_00000010"])
    assert config.weights == {"scratch": "none", "ours": "runs/x/step_00000010"}


def test_a_config_survives_json(tmp_path: Path) -> None:
    config, _ = load(PretrainConfig, write(tmp_path, PRETRAIN))
    tree = to_dict(config)
    assert json.loads(json.dumps(tree)) == tree
    other = {**tree, "train": {**tree["train"], "steps": 6}}
    assert differences(tree, other) == [("train.steps", 5, 6)]


def test_steps_on_the_command_line_replace_the_files_epochs(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[run]\nurl = "r"\n[data]\nshards = "s"\n[train]\nepochs = 800\n')
    config, origins = load(PretrainConfig, str(file), ["train.steps=2"])
    assert (config.train.steps, config.train.epochs) == (2, 0)
    assert (origins["train.steps"], origins["train.epochs"]) == ("command line", "default")
