"""The stream as a training loop reads it: real shards, real processes."""

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retfound_dist.config.schema import PackConfig, PackOut, Source
from retfound_dist.errors import ConfigError, ManifestError
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.runtime.world import World
from retfound_dist.stream import MicroBatch, open_stream
from shards.append import append
from tests.shards.pack_inputs import write_image
from tests.stream.stream_inputs import make_set


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    found = make_set(tmp_path_factory.mktemp("set"))
    assert len(found.shards) >= 4
    return found


def read(manifest: Manifest, world: int, start: int, stop: int, workers: int = 0) -> list[list[MicroBatch]]:
    """Every rank's micro-batches."""
    return [read_rank(manifest, World(rank, world), start, stop, workers) for rank in range(world)]


def read_rank(manifest: Manifest, world: World, start: int, stop: int, workers: int = 0) -> list[MicroBatch]:
    """One rank's micro-batches."""
    with open_stream(
        manifest, 13, micro_batch=4, image_size=28, patches=4, seed=5, world=world,
        start_step=start, stop_step=stop, workers=workers, window_shards=2,
    ) as stream:  # fmt: skip
        return list(stream)


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


def test_the_first_shards_of_a_grown_set_give_the_batches_the_set_gave_before(tmp_path: Path) -> None:
    before = make_set(tmp_path)
    old = samples(read(before, 1, 0, 4))
    for number in range(12):
        write_image(tmp_path / "more" / f"{number}.png", 7000 + number)
    out = PackOut(url=before.url, shard_mb=0.02, workers=1)
    grown = append(PackConfig(source=Source(path=str(tmp_path / "more")), out=out))
    assert samples(read(grown, 1, 0, 4)).keys() != old.keys()
    for shards in (grown, grown.url):
        with open_stream(
            shards, 13, micro_batch=4, image_size=28, patches=4, seed=5, world=World(), stop_step=4,
            workers=0, window_shards=2, first_shards=len(before.shards),
        ) as stream:  # fmt: skip
            assert_same(samples([list(stream)]), old)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_every_world_size_reads_the_same_pixels_and_masks(manifest: Manifest, world: int) -> None:
    alone = samples(read(manifest, 1, 0, 6))
    assert len(alone) == 6 * 13
    assert_same(alone, samples(read(manifest, world, 0, 6)))


def test_seeking_to_a_step_equals_reading_up_to_it(manifest: Manifest) -> None:
    whole = samples(read(manifest, 1, 0, 8))
    assert_same({k: v for k, v in whole.items() if k[0] >= 5}, samples(read(manifest, 1, 5, 8)))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_loader_processes_change_nothing(manifest: Manifest, workers: int) -> None:
    assert_same(samples(read(manifest, 1, 0, 4)), samples(read(manifest, 1, 0, 4, workers)))


@given(
    world=st.one_of(st.integers(1, 17), st.just(224)),
    batch=st.integers(1, 40),
    micro=st.integers(1, 9),
    start=st.integers(0, 12),
    window=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_steps_pixels_and_masks_follow_from_the_step_alone(
    manifest: Manifest, world: int, batch: int, micro: int, start: int, window: int, seed: int
) -> None:
    """Every world size, from any step, pixel for pixel: what one rank read on its way there."""

    def ranks(size: int, begin: int, passes: int) -> list[list[MicroBatch]]:
        found = []
        for rank in range(size):
            with open_stream(
                manifest, batch, micro_batch=passes, image_size=16, patches=4, seed=seed, world=World(rank, size),
                start_step=begin, stop_step=start + 1, workers=0, window_shards=window,
            ) as stream:  # fmt: skip
                found.append(list(stream))
        return found

    on_the_way = {key: value for key, value in samples(ranks(1, 0, batch)).items() if key[0] == start}
    assert len(on_the_way) == len(set(on_the_way))
    assert_same(on_the_way, samples(ranks(world, start, micro)))


def test_padding_has_weight_zero_and_no_key(manifest: Manifest) -> None:
    ranks = read(manifest, 3, 0, 1)
    assert sum(len(p.weight) for parts in ranks for p in parts) == 18
    assert sum(int(p.weight.sum()) for parts in ranks for p in parts) == 13


def test_a_part_that_was_not_packed_is_refused(manifest: Manifest) -> None:
    with pytest.raises(ManifestError, match="no part 'train'"):
        open_stream(manifest, 13, split="train")


def test_a_setting_that_does_not_exist_is_refused(manifest: Manifest) -> None:
    with pytest.raises(ConfigError, match="wrkers"):
        open_stream(manifest, 13, wrkers=2)


def test_a_users_own_loop_takes_a_url_and_goes_on_without_end(manifest: Manifest) -> None:
    with open_stream(manifest.url, global_batch=8, workers=0, seed=3) as stream:
        batches = list(itertools.islice(stream, 20))
    assert [b.step for b in batches] == list(range(20))
    assert batches[0].images.shape == (8, 1, 224, 224)
    assert len({key for b in batches[:6] for key in b.keys}) == 48
