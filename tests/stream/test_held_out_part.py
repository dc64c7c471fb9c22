"""Which part of a shard set is held out: a function of the config's `[data]` and the manifest."""

from dataclasses import replace
from typing import Any

import pytest

from retfound_dist.config.schema import Data
from retfound_dist.errors import ConfigError, ManifestError
from retfound_dist.formats.shard_set import IndexFile, Manifest, Shard
from retfound_dist.stream.held_out_part import held_out_part


def manifest_of(*parts: str | None, empty: str = "") -> Manifest:
    """A set of one shard a part; the shard of the part `empty` holds no samples."""
    shards = tuple(
        Shard(
            f"s-{number:06d}.tar",
            0 if part == empty else 10,
            1000,
            "0" * 64,
            part,
            IndexFile("i", 1, "0" * 64),
        )
        for number, part in enumerate(parts)
    )
    return Manifest("memory://set", sum(shard.samples for shard in shards), shards, {}, {}, ())


SPLIT = manifest_of("train", "val", "test")
TRAIN = Data(shards="memory://set", split="train")


def data(**settings: Any) -> Data:
    return replace(TRAIN, **settings)


@pytest.mark.parametrize("split", ["train", "auto"])
def test_auto_holds_val_out_where_val_is_not_trained_on(split: str) -> None:
    assert held_out_part(data(split=split), SPLIT) == "val"


@pytest.mark.parametrize("split", ["all", "val", "test"])
def test_auto_holds_nothing_out_where_val_may_be_trained_on(split: str) -> None:
    assert held_out_part(data(split=split), SPLIT) == ""


def test_auto_holds_nothing_out_of_a_set_without_val_or_with_an_empty_one() -> None:
    assert held_out_part(TRAIN, manifest_of("train", "test")) == ""
    assert held_out_part(data(split="auto"), manifest_of(None)) == ""
    assert held_out_part(TRAIN, manifest_of("train", "val", empty="val")) == ""


def test_none_holds_nothing_out_and_a_named_part_is_taken() -> None:
    assert held_out_part(data(held_out="none"), SPLIT) == ""
    assert held_out_part(data(held_out="val"), SPLIT) == "val"
    assert held_out_part(data(held_out="test"), SPLIT) == "test"


@pytest.mark.parametrize(
    ("split", "part"), [("all", "val"), ("all", "test"), ("val", "val"), ("test", "test")]
)
def test_a_part_that_is_trained_on_is_refused_with_both_settings_named(split: str, part: str) -> None:
    with pytest.raises(ConfigError, match=f"data.held_out='{part}' is trained on with data.split='{split}'"):
        held_out_part(data(split=split, held_out=part), SPLIT)


def test_a_part_that_was_not_packed_is_refused() -> None:
    with pytest.raises(ManifestError, match="no part 'test'"):
        held_out_part(data(held_out="test"), manifest_of("train", "val"))
