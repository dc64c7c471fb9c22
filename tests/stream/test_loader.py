"""The stream as a training loop reads it: real shards, real processes."""

from pathlib import Path

import pytest
import torch

from retfound_dist.errors import ManifestError
from retfound_dist.schema import Data
from retfound_dist.shardset import Manifest, read_manifest
from retfound_dist.stream.loader import MicroBatch, make_plan, open_stream
from retfound_dist.stream.plan import layout
from tests.stream.stream_inputs import make_set


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    found = make_set(tmp_path_factory.mktemp("set"))
    assert len(found.shards) >= 4
    return found


def read(manifest: Manifest, world: int, start: int, stop: int, workers: int = 0) -> list[list[MicroBatch]]:
    """Every rank's micro-batches."""
    data = Data(shards=manifest.url, workers=workers, window_shards=2)
    plan, cut = make_plan(manifest, data, 13, seed=5), layout(13, world, 4)
    ranks = []
    for rank in range(world):
        with open_stream(manifest, data, plan, cut, 28, 4, rank, start, stop) as stream:
            ranks.append(list(stream))
    return ranks


def samples(ranks: list[list[MicroBatch]]) -> dict[tuple[int, str], tuple[torch.Tensor, torch.Tensor]]:
    """(step, key) -> image and mask noise, padding left out."""
    found = {}
    for part in (p for parts in ranks for p in parts):
        assert part.weight.sum() == len(part.keys)
        for row, key in enumerate(part.keys):
            assert part.weight[row] == 1
            found[(part.step, key)] = (part.images[row], part.noise[row])
    return found


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for key, (image, noise) in one.items():
        assert torch.equal(image, other[key][0])
        assert torch.equal(noise, other[key][1])


@pytest.mark.parametrize("world", [2, 3, 5])
def test_every_world_size_reads_the_same_pixels_and_masks(manifest: Manifest, world: int) -> None:
    alone = samples(read(manifest, 1, 0, 6))
    assert len(alone) == 6 * 13
    assert_same(alone, samples(read(manifest, world, 0, 6)))


def test_seeking_to_a_step_equals_reading_up_to_it(manifest: Manifest) -> None:
    whole = samples(read(manifest, 1, 0, 8))
    assert_same({k: v for k, v in whole.items() if k[0] >= 5}, samples(read(manifest, 1, 5, 8)))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_loader_processes_change_nothing(manifest: Manifest, workers: int) -> None:
    assert_same(samples(read(manifest, 1, 0, 4)), samples(read(manifest, 1, 0, 4, workers)))


def test_padding_has_weight_zero_and_no_key(manifest: Manifest) -> None:
    ranks = read(manifest, 3, 0, 1)
    assert sum(len(p.weight) for parts in ranks for p in parts) == 18
    assert sum(int(p.weight.sum()) for parts in ranks for p in parts) == 13


def test_a_part_that_was_not_packed_is_refused(manifest: Manifest) -> None:
    with pytest.raises(ManifestError, match="no part 'train'"):
        make_plan(manifest, Data(shards=manifest.url, split="train"), 13, 0)


def test_a_remote_set_is_fetched_once_and_gone_afterwards(tmp_path: Path) -> None:
    remote = make_set(tmp_path, count=20, url="memory://remote-set")
    data = Data(shards=remote.url, workers=0, window_shards=2, cache_dir=str(tmp_path / "cache"))
    plan, cut = make_plan(remote, data, 5, 0), layout(5, 1, 5)
    with open_stream(read_manifest(remote.url), data, plan, cut, 28, 4, stop_step=8) as stream:
        keys = [key for part in stream for key in part.keys]
    assert sorted(keys[:20]) == sorted(keys[20:])
    assert {p.name for p in (tmp_path / "cache").glob("*.tar")} == {s.name for s in remote.shards}
