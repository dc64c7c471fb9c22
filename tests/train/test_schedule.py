"""The arithmetic of a run: its length, where it leaves, its learning rates."""

from __future__ import annotations

import math

import pytest

from retfound_dist.config.schema import Data, Optim, PretrainConfig, Run, Train
from retfound_dist.formats.shard_set import IndexFile, Manifest, Shard
from retfound_dist.stream.batch_plan import BatchPlan
from retfound_dist.train.schedule import RunSchedule, make_schedule, run_steps


def manifest(*counts: int) -> Manifest:
    shards = tuple(Shard(f"{i}.tar", n, 0, "", "train", IndexFile("", 0, "")) for i, n in enumerate(counts))
    return Manifest("memory://set", sum(counts), shards, {}, {}, ())


def config(train: Train, optim: Optim | None = None) -> PretrainConfig:
    data = Data(shards="memory://set", split="train", window_shards=2)
    return PretrainConfig(run=Run(url="unused"), data=data, train=train, optim=optim or Optim())


def schedule_of(
    train: Train, optim: Optim | None = None, samples: int = 50, ranks: int = 1, micro: int = 64
) -> RunSchedule:
    return make_schedule(config(train, optim), manifest(samples), ranks, micro)


@pytest.mark.parametrize(
    ("samples", "batch", "epochs", "steps"),
    [
        (50, 10, 6, 30),
        (50, 11, 6, 28),
        (50, 100, 1, 1),
        (50, 100, 3, 2),
        (182_980, 1792, 800, 81_688),
        (3, 7, 1, 1),
    ],
)
def test_epochs_become_the_steps_that_see_all_their_images(
    samples: int, batch: int, epochs: int, steps: int
) -> None:
    assert (
        run_steps(config(Train(global_batch=batch, epochs=epochs)), BatchPlan((samples,), 0, batch, 1))
        == steps
    )
    assert steps == max(1, math.ceil(samples * epochs / batch))


def test_a_length_in_steps_is_taken_as_it_is() -> None:
    assert schedule_of(Train(global_batch=10, steps=7)).steps == 7


def test_a_run_leaves_at_its_last_step_or_where_it_is_told_to_if_that_is_sooner() -> None:
    lasts = [
        schedule_of(Train(global_batch=10, steps=7, stop_at_step=stop)).last_step for stop in (0, 1, 6, 7, 8)
    ]
    assert lasts == [7, 1, 6, 7, 7]


def test_the_rate_rises_over_warm_up_epochs_of_images_and_falls_by_a_half_cosine() -> None:
    """base_lr x batch / 256 = 0.01 after 2 epochs of 50 images in batches of 10; 6 epochs in all."""
    run = schedule_of(Train(global_batch=10, epochs=6), Optim(warmup_epochs=2, base_lr=0.256, min_lr=0.001))
    assert [run.lr(step) for step in (0, 1, 5, 10)] == pytest.approx([0.0, 0.001, 0.005, 0.01])
    assert run.lr(20) == pytest.approx((0.01 + 0.001) / 2)
    assert run.lr(15) == pytest.approx(0.001 + 0.009 * (1 + math.cos(math.pi / 4)) / 2)
    assert run.lr(30) == pytest.approx(0.001)


def test_the_papers_run_has_the_papers_rates() -> None:
    """RETFound on 182,980 B-scans: 1,792 a step, 15 epochs of warm-up to 1.05e-3."""
    run = schedule_of(Train(global_batch=1792, epochs=800), Optim(), samples=182_980, ranks=8, micro=224)
    assert run.lr(766) == pytest.approx(1.05e-3 * 766 * 1792 / (15 * 182_980))
    assert max(run.lr(step) for step in range(1500, 1600)) == pytest.approx(1.05e-3, rel=1e-4)


def test_a_batch_is_cut_for_the_ranks_there_are_and_the_order_does_not_know_of_them() -> None:
    train = Train(global_batch=11, steps=3, seed=5)
    one, three = (make_schedule(config(train), manifest(20, 30, 10), ranks, 2) for ranks in (1, 3))
    assert one.plan == three.plan == BatchPlan((20, 30, 10), 5, 11, 2)
    assert (one.layout.world, one.layout.micro, one.layout.accumulation) == (1, 2, 6)
    assert (three.layout.world, three.layout.micro, three.layout.accumulation) == (3, 2, 2)
    assert [one.lr(step) for step in range(3)] == [three.lr(step) for step in range(3)]
