"""Promise 1: a batch is a function of its step. Promise 2: any world size, the same batch."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retfound_dist.errors import ConfigError, DataError
from retfound_dist.stream.plan import Plan, batch_digest, generator, layout, rank_slots, sample_generator

COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=12).map(tuple)
PLANS = st.builds(Plan, COUNTS, st.integers(0, 2**31), st.integers(1, 70), st.integers(1, 6))
WORLDS = st.one_of(st.integers(1, 17), st.just(224))


@given(PLANS)
@settings(max_examples=60, deadline=None)
def test_each_epoch_visits_every_sample_exactly_once(plan: Plan) -> None:
    steps = -(-2 * plan.samples // plan.global_batch)
    batches = [plan.batch(step) for step in range(steps)]
    epoch = np.concatenate([b.epoch for b in batches])
    sample = np.concatenate([b.sample for b in batches])
    for number in (0, 1):
        assert np.array_equal(np.sort(sample[epoch == number]), np.arange(plan.samples))


@given(PLANS, st.integers(0, 500), WORLDS, st.integers(1, 33))
@settings(max_examples=100, deadline=None)
def test_the_union_over_ranks_is_the_global_batch_at_every_world_size(
    plan: Plan, step: int, world: int, micro: int
) -> None:
    cut, whole = layout(plan.global_batch, world, micro), plan.batch(step)
    assert cut.micro <= micro
    parts = [whole[rank_slots(cut, r, a)].sample for r in range(world) for a in range(cut.accumulation)]
    assert all(len(part) <= cut.micro for part in parts)
    assert np.array_equal(np.concatenate(parts), whole.sample)


@given(PLANS, st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_a_step_looked_up_alone_equals_the_step_reached_in_order(plan: Plan, step: int) -> None:
    again = Plan(plan.counts, plan.seed, plan.global_batch, plan.window)
    for earlier in range(max(0, step - 5), step):
        again.batch(earlier)
    assert np.array_equal(again.batch(step).sample, plan.batch(step).sample)


@given(PLANS, st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_a_batch_reads_only_from_its_windows(plan: Plan, step: int) -> None:
    batch = plan.batch(step)
    allowed = {(e, s) for e, w in plan.windows(step) for s in plan.window_shards(e, w)}
    assert set(zip(batch.epoch.tolist(), batch.shard.tolist(), strict=True)) <= allowed


def test_index_and_shard_name_the_sample() -> None:
    plan = Plan((3, 5, 2), seed=1, global_batch=10, window=2)
    batch = plan.batch(0)
    starts = np.array([0, 3, 8])
    assert np.array_equal(starts[batch.shard] + batch.index, batch.sample)


def test_seeds_and_epochs_give_other_orders() -> None:
    one, other = (Plan((50, 50), seed, 100, 2) for seed in (0, 1))
    assert not np.array_equal(one.batch(0).sample, other.batch(0).sample)
    assert not np.array_equal(one.batch(0).sample, one.batch(1).sample)


@pytest.mark.parametrize(
    ("batch", "world", "micro", "expected"),
    [
        (1792, 8, 224, (224, 1, 0)),
        (1792, 3, 64, (60, 10, 8)),
        (1792, 5, 64, (60, 6, 8)),
        (1792, 224, 64, (8, 1, 0)),
        (24, 2, 64, (12, 1, 0)),
        (1, 3, 8, (1, 1, 2)),
    ],
)
def test_layout_wastes_little(batch: int, world: int, micro: int, expected: tuple[int, int, int]) -> None:
    cut = layout(batch, world, micro)
    assert (cut.micro, cut.accumulation, cut.padding) == expected


def test_layout_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        layout(0, 1, 1)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(DataError, match="no samples"):
        Plan((), 0, 1, 1)


def test_the_digest_is_the_sum_of_the_keys_hashes_whatever_their_order() -> None:
    keys = ["a", "b", "c"]
    expected = sum(int(hashlib.sha256(k.encode()).hexdigest()[:16], 16) for k in keys) % 2**64
    assert batch_digest(keys) == batch_digest(keys[::-1]) == expected


def test_generators_are_keyed_by_all_four_numbers() -> None:
    draws = {
        generator(*key).random()
        for key in [(0, 1, 2, 3), (1, 1, 2, 3), (0, 2, 2, 3), (0, 1, 3, 3), (0, 1, 2, 4)]
    }
    assert len(draws) == 5
    assert generator(0, 1, 2, 3).random() in draws


@given(st.lists(st.tuples(*[st.integers(0, 2**40)] * 4), min_size=1, max_size=5))
def test_the_quick_generator_draws_what_the_plain_one_draws(keys: list[tuple[int, int, int, int]]) -> None:
    for key in keys:
        quick, plain = sample_generator(*key), generator(*key)
        assert quick.random() == plain.random()
        assert np.array_equal(quick.random(5, dtype=np.float32), plain.random(5, dtype=np.float32))
        assert quick.integers(0, 100) == plain.integers(0, 100)
