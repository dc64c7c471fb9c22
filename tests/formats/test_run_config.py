"""A run's config.json is read as far as others rely on it, or refused with what a person can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.errors import FormatError, RecordError, StorageError
from retfound_dist.formats import run_config
from retfound_dist.formats.run_config import read_config

RUN: dict[str, Any] = {
    "train": {"steps": 4, "global_batch": 8},
    "data": {"shards": "a/set"},
    "model": {"name": "vit_large_patch16", "init": "none"},
    "checkpoint": {"every_steps": 2},
    "shard_set": {"fingerprint": "ab", "shards": 2, "samples": 20},
    "init_weights": {"sha256": "0" * 64},
}


def write_config(run: Path, tree: Any) -> str:
    (run / "config.json").write_text(json.dumps(tree))
    return str(run)


def test_sections_and_keys_of_a_later_version_stay_in_it(tmp_path: Path) -> None:
    later = RUN | {"of_the_future": {"a": 1}, "train": RUN["train"] | {"of_the_future": [None]}}
    assert read_config(write_config(tmp_path, later)) == later
    assert list(read_config(str(tmp_path))) == list(later)


@pytest.mark.parametrize("length", [{"steps": 4}, {"epochs": 0.5}, {"steps": 0, "epochs": 800}])
def test_any_length_makes_a_run(length: dict[str, Any], tmp_path: Path) -> None:
    assert read_config(write_config(tmp_path, {"train": length})) == {"train": length}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": {"lr": 1}}, "it has neither steps nor epochs"),
        ({"train": {"steps": -1}}, "train.steps is -1"),
        ({"train": {"epochs": "many"}}, "train.epochs is 'many'"),
        ({"data": {"shards": 7}}, "data.shards is 7"),
        ({"checkpoint": {"every_steps": True}}, "checkpoint.every_steps is true"),
        ({"shard_set": {"fingerprint": "ab", "shards": 2}}, "shard_set.samples is missing"),
        ({"init_weights": {"sha256": "../etc"}}, "init_weights.sha256 is '../etc'"),
    ],
)
def test_a_value_that_no_run_writes_is_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(
        RecordError, match=rf"config\.json is damaged or of another program: .*{said}"
    ) as caught:
        read_config(write_config(tmp_path, RUN | change))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(run_config.REMEDY)


@pytest.mark.parametrize("content", ["[]", "3", "{}", '{"architecture": "vit"}', '{"train": 5}'])
def test_a_config_of_another_program_is_no_run_s(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(
        RecordError, match=r"config\.json is damaged or of another program: line 1: .*remove it"
    ):
        read_config(str(tmp_path), remedy="remove it")


def test_a_config_of_a_later_format_is_refused_and_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"format": 2, "training": {"steps": 4}}')
    with pytest.raises(
        FormatError, match=r"config\.json has format 2, this version reads format 1: use the version"
    ):
        read_config(str(tmp_path))


def test_a_config_of_gigabytes_is_not_read_and_a_missing_one_is_another_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        read_config(str(tmp_path))
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(10 << 30)  # a file with a hole: it takes no room on the disk
    with pytest.raises(RecordError, match="has more than 16,777,216 bytes and is not read"):
        read_config(str(tmp_path))
