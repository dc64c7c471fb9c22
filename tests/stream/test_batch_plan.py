"""Promise 1: a batch is a function of its step. Promise 2: any world size, the same batch."""

import hashlib
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retfound_dist.errors import ConfigError, DataError
from retfound_dist.stream.batch_plan import (
    BatchPlan,
    SampleRefs,
    batch_digest,
    generator,
    make_batch_layout,
    rank_share,
    rank_slots,
    sample_generator,
)

COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=12).map(tuple)
PLANS = st.builds(BatchPlan, COUNTS, st.integers(0, 2**31), st.integers(1, 70), st.integers(1, 6))
WORLDS = st.one_of(st.integers(1, 17), st.just(224))


@given(PLANS)
@settings(max_examples=60, deadline=None)
def test_each_epoch_visits_every_sample_exactly_once(plan: BatchPlan) -> None:
    steps = -(-2 * plan.samples // plan.global_batch)
    batches = [plan.batch(step) for step in range(steps)]
    epoch = np.concatenate([b.epoch for b in batches])
    sample = np.concatenate([b.sample for b in batches])
    for number in (0, 1):
        assert np.array_equal(np.sort(sample[epoch == number]), np.arange(plan.samples))


@given(PLANS, st.integers(0, 500), WORLDS, st.integers(1, 33))
@settings(max_examples=100, deadline=None)
def test_the_union_over_ranks_is_the_global_batch_at_every_world_size(
    plan: BatchPlan, step: int, world: int, micro: int
) -> None:
    cut, whole = make_batch_layout(plan.global_batch, world, micro), plan.batch(step)
    assert cut.micro <= micro
    parts = [whole[rank_slots(cut, r, a)].sample for r in range(world) for a in range(cut.accumulation)]
    assert all(len(part) <= cut.micro for part in parts)
    assert np.array_equal(np.concatenate(parts), whole.sample)


@given(PLANS, st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_a_step_looked_up_alone_equals_the_step_reached_in_order(plan: BatchPlan, step: int) -> None:
    again = BatchPlan(plan.counts, plan.seed, plan.global_batch, plan.window)
    for earlier in range(max(0, step - 5), step):
        again.batch(earlier)
    assert np.array_equal(again.batch(step).sample, plan.batch(step).sample)


@given(PLANS, st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_a_batch_reads_only_from_its_windows(plan: BatchPlan, step: int) -> None:
    batch = plan.batch(step)
    allowed = {(e, s) for e, w in plan.windows(step) for s in plan.window_shards(e, w)}
    assert set(zip(batch.epoch.tolist(), batch.shard.tolist(), strict=True)) <= allowed


def test_index_and_shard_name_the_sample() -> None:
    plan = BatchPlan((3, 5, 2), seed=1, global_batch=10, window=2)
    batch = plan.batch(0)
    starts = np.array([0, 3, 8])
    assert np.array_equal(starts[batch.shard] + batch.index, batch.sample)


def test_seeds_and_epochs_give_other_orders() -> None:
    one, other = (BatchPlan((50, 50), seed, 100, 2) for seed in (0, 1))
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
    cut = make_batch_layout(batch, world, micro)
    assert (cut.micro, cut.accumulation, cut.padding) == expected


def test_layout_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        make_batch_layout(0, 1, 1)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(DataError, match="no samples"):
        BatchPlan((), 0, 1, 1)


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


def test_every_epoch_has_an_order_of_shards_of_its_own() -> None:
    plan = BatchPlan((4,) * 8, seed=3, global_batch=8, window=2)
    orders = [tuple(s for w in range(4) for s in plan.window_shards(epoch, w)) for epoch in range(12)]
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len(set(orders)) == 12


def test_every_window_of_every_epoch_has_an_order_of_samples_of_its_own() -> None:
    """Two shards in windows of one: the order within a shard is drawn anew each time."""
    plan = BatchPlan((8, 8), seed=3, global_batch=8, window=1)
    orders = [tuple(plan.batch(step).index.tolist()) for step in range(12)]
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len(set(orders)) == 12


def columns(refs: SampleRefs) -> list[list[int]]:
    return [column.tolist() for column in (refs.epoch, refs.shard, refs.index, refs.sample)]


def test_the_order_is_the_one_that_runs_have_begun_with() -> None:
    """A run goes on with the same batches under a later version: these numbers may not change."""
    plan = BatchPlan((3, 4, 2, 5), seed=7, global_batch=6, window=2)
    assert [plan.window_shards(0, w) for w in (0, 1)] == [[3, 0], [2, 1]]
    assert [plan.windows(step) for step in (0, 1, 2, 4)] == [
        [(0, 0)], [(0, 0), (0, 1)], [(0, 1), (1, 0)], [(1, 1), (2, 0)],
    ]  # fmt: skip
    assert columns(plan.batch(0)) == [[0] * 6, [3, 3, 3, 3, 0, 0], [4, 1, 3, 2, 2, 1], [13, 10, 12, 11, 2, 1]]
    assert columns(plan.batch(2)) == [
        [1, 0, 1, 1, 0, 1], [0, 1, 0, 2, 1, 2], [1, 1, 2, 0, 0, 1], [1, 4, 2, 7, 3, 8],
    ]  # fmt: skip
    assert columns(plan.batch(9)) == [
        [4, 3, 4, 4, 3, 4], [2, 0, 1, 1, 0, 1], [1, 1, 3, 1, 2, 0], [8, 1, 6, 4, 2, 3],
    ]  # fmt: skip


def test_slots_follow_the_windows_shards_and_two_windows_are_spread_over_all_slots() -> None:
    plan = BatchPlan((6,) * 4, seed=1, global_batch=12, window=2)
    for step in range(4):
        (epoch, window) = plan.windows(step)[0]
        order = plan.window_shards(epoch, window)
        assert plan.windows(step) == [(epoch, window)]
        assert plan.batch(step).shard.tolist() == [order[0]] * 6 + [order[1]] * 6
    uneven = BatchPlan((8, 8), seed=1, global_batch=12, window=1)
    first, second = (uneven.window_shards(0, w)[0] for w in (0, 1))
    # 8 of one window at (i + 1/2) / 8, 4 of the next at (i + 1/2) / 4
    assert [s == second for s in uneven.batch(0).shard] == [
        False, True, False, False, True, False, False, True, False, False, True, False,
    ]  # fmt: skip
    assert set(uneven.batch(0).shard.tolist()) == {first, second}


def test_the_windows_of_a_step_are_the_ones_it_reads_and_no_others() -> None:
    for counts, batch, window in (
        ((3, 4, 2, 5), 5, 2),
        ((7, 1, 1, 9, 2), 4, 1),
        ((2, 2), 11, 3),
        ((5, 5), 5, 1),
    ):
        plan = BatchPlan(counts, 5, batch, window)
        for step in range(20):
            read = plan.batch(step)
            places = set(zip(read.epoch.tolist(), read.shard.tolist(), strict=True))
            holds = [
                (e, w)
                for e in range(60)
                for w in range(5)
                if places & {(e, s) for s in plan.window_shards(e, w)}
            ]
            assert plan.windows(step) == holds


@pytest.mark.parametrize(
    ("batch", "world", "micro", "said"),
    [
        (12, 1, 12, "12 = 1 rank x 1 pass x 12"),
        (12, 2, 3, "12 = 2 ranks x 2 passes x 3"),
        (1792, 3, 64, "1792 = 3 ranks x 10 passes x 60, less 8 of 1800 slots padded with weight 0"),
    ],
)
def test_a_layout_is_told_in_one_line(batch: int, world: int, micro: int, said: str) -> None:
    assert make_batch_layout(batch, world, micro).describe() == said


@pytest.mark.parametrize("numbers", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (-1, 1, 1)])
def test_a_layout_of_nothing_names_what_was_asked_for(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match="batch {}, ranks {} and micro-batch {} must all".format(*numbers)):
        make_batch_layout(*numbers)


def test_a_layout_has_the_fewest_passes_and_then_the_least_padding() -> None:
    for batch in range(1, 40):
        for world in range(1, 8):
            for micro in range(1, 12):
                cut = make_batch_layout(batch, world, micro)
                possible = [
                    (a, m) for a in range(1, batch + 1) for m in range(1, micro + 1) if a * m * world >= batch
                ]
                assert (cut.accumulation, cut.micro) == min(possible)
                assert (cut.padded, cut.padding) == (world * cut.micro * cut.accumulation, cut.padded - batch)
                assert (cut.global_batch, cut.world) == (batch, world)


def test_neighbouring_ranks_share_their_slots_in_a_row() -> None:
    cut = make_batch_layout(22, 3, 4)
    assert (cut.micro, cut.accumulation) == (4, 2)
    assert [rank_share(cut, rank) for rank in range(3)] == [slice(0, 8), slice(8, 16), slice(16, 24)]
    assert rank_share(cut, 1, 2) == slice(8, 24)
    assert [rank_slots(cut, 1, a) for a in range(2)] == [slice(8, 12), slice(12, 16)]


def test_refs_are_cut_in_all_their_columns_and_cannot_be_changed() -> None:
    whole = BatchPlan((3, 5, 2), seed=1, global_batch=10, window=2).batch(1)
    part = whole[2:5]
    assert (len(whole), len(part)) == (10, 3)
    for name in ("epoch", "shard", "index", "sample"):
        assert getattr(part, name).tolist() == getattr(whole, name).tolist()[2:5]
        assert getattr(whole, name).dtype == np.int64
        with pytest.raises(FrozenInstanceError):
            setattr(whole, name, None)


def test_a_plan_and_a_layout_cannot_be_changed_and_are_told_apart_by_their_numbers() -> None:
    assert BatchPlan((3, 5), 1, 2, 2) == BatchPlan((3, 5), 1, 2, 2)
    assert make_batch_layout(8, 2, 2) == make_batch_layout(8, 2, 2)
    with pytest.raises(FrozenInstanceError):
        BatchPlan((3, 5), 1, 2, 2).seed = 4  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        make_batch_layout(8, 2, 2).micro = 4  # type: ignore[misc]


def test_the_digest_of_known_keys_is_known_and_wraps_at_64_bits() -> None:
    assert batch_digest([]) == 0
    assert batch_digest(["a"]) == 0xCA978112CA1BBDCA  # sha256("a") begins so
    many = batch_digest(["a"] * 3)
    assert many == 3 * 0xCA978112CA1BBDCA - 2 * 2**64


def test_two_windows_of_equal_parts_take_turns_slot_by_slot() -> None:
    """Both stand at (i + 1/2) / 40: of equal places the earlier window's comes first."""
    plan = BatchPlan((40, 40), seed=2, global_batch=80, window=1)
    order = [plan.window_shards(0, w)[0] for w in (0, 1)]
    assert plan.batch(0).shard.tolist() == order * 40


def test_in_a_batch_the_samples_of_a_shard_stand_as_the_window_was_shuffled() -> None:
    """One window of two shards of 40: the permutation's numbers below 40 are the first shard's, in their order."""
    batch = BatchPlan((40, 40), seed=2, global_batch=80, window=2).batch(0)
    shuffled = generator(2, 2, 0, 0).permutation(80)
    assert batch.index.tolist() == [n for n in shuffled if n < 40] + [n - 40 for n in shuffled if n >= 40]
    order = generator(2, 1, 0, 0).permutation(2).tolist()
    assert batch.shard.tolist() == [order[0]] * 40 + [order[1]] * 40
