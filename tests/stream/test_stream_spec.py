"""What a rank's stream is made of, from one frozen value."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.config.schema import Data
from retfound_dist.formats.shard_set import Manifest, read_index
from retfound_dist.runtime.world import World
from retfound_dist.stream.stream_spec import StreamSpec
from tests.stream.stream_inputs import make_set, make_spec


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_set(tmp_path_factory.mktemp("set"))


def spec(manifest: Manifest, tmp_path: Path, **settings: Any) -> StreamSpec:
    return make_spec(manifest, str(tmp_path / "cache"), **settings)


def test_a_spec_is_the_same_after_it_was_sent_to_another_process(manifest: Manifest, tmp_path: Path) -> None:
    whole = spec(manifest, tmp_path)
    assert pickle.loads(pickle.dumps(whole)) == whole


def test_shards_are_those_of_the_part_that_is_trained_on(manifest: Manifest, tmp_path: Path) -> None:
    first, *others = manifest.shards
    split = replace(
        manifest, shards=(replace(first, split="val"), *(replace(shard, split="train") for shard in others))
    )
    assert [s.name for s in spec(split, tmp_path, split="train").shards] == [s.name for s in others]
    assert [s.name for s in spec(split, tmp_path, split="val").shards] == [first.name]


def test_images_are_grey_unless_the_set_has_colour(manifest: Manifest, tmp_path: Path) -> None:
    assert spec(manifest, tmp_path).grey
    assert not spec(replace(manifest, image={"colour": True}), tmp_path).grey


@pytest.mark.parametrize(
    ("url", "remote"),
    [("memory://set", True), ("s3://bucket/set", True), ("/set", False), ("file:///set", False)],
)
def test_only_what_is_not_on_this_machine_is_fetched(
    manifest: Manifest, tmp_path: Path, url: str, remote: bool
) -> None:
    assert spec(replace(manifest, url=url), tmp_path).remote is remote


def test_a_users_cache_is_bounded_and_kept_and_a_temporary_one_is_not(
    manifest: Manifest, tmp_path: Path
) -> None:
    """`data.cache_gb` is in units of 1e9 bytes, and bounds `data.cache_dir` only."""
    folder = str(tmp_path / "user")
    users = spec(manifest, tmp_path, cache_dir=folder, cache_gb=0.5).cache()
    assert (users.limit_bytes, users.only_needed) == (500_000_000, False)
    endless = spec(manifest, tmp_path, cache_dir=folder).cache()
    assert (endless.limit_bytes, endless.only_needed) == (None, False)
    temporary = spec(manifest, tmp_path, cache_gb=0.5).cache()
    assert (temporary.limit_bytes, temporary.only_needed) == (None, True)


def test_a_rank_looks_ahead_for_itself_and_for_all_ranks_of_its_node(
    manifest: Manifest, tmp_path: Path
) -> None:
    """Two nodes of two ranks: rank 3 reads the last quarter of a batch, its node the second half."""
    world = World(rank=3, size=4, local_rank=1, local_size=2)
    # One window an epoch: so the need is what all three batches read.
    there = spec(manifest, tmp_path, world=world, global_batch=16, window_shards=100)
    needed = there.lookahead().needed_shards(0)
    batches = [there.plan.batch(step) for step in range(there.stop_step)]
    assert set(needed.rank) == {shard for batch in batches for shard in batch[12:16].shard.tolist()}
    assert needed.node == {shard for batch in batches for shard in batch[8:16].shard.tolist()}


def test_without_fetched_shards_samples_are_read_where_they_are(manifest: Manifest, tmp_path: Path) -> None:
    (sample,) = spec(manifest, tmp_path).reader(None).read([(1, 0)])
    assert sample.key == read_index(manifest.url, manifest.shards[1])[0].key


def test_the_reader_stops_at_the_budget_of_bad_samples(manifest: Manifest, tmp_path: Path) -> None:
    reader = spec(manifest, tmp_path, bad_sample_budget=3).reader(None)
    assert reader._max_replaced == 3
    assert Data(shards="x").bad_sample_budget != 3
