"""The model of a run: numbers worked out by hand, limits, and which way things go."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retfound_dist.plan.forecast import (
    ASSUMPTIONS,
    BUCKET,
    GRADIENT_BYTES,
    WHOLE_BUCKET,
    Machine,
    Shape,
    Work,
    buckets,
    forecast,
    gathers_per_pass,
    traffic,
)
from retfound_dist.stream.batch_plan import make_batch_layout
from retfound_dist.train.engine import deepspeed_config

VIT_L = Work(parameters=330_000_000, flops_per_image=125e9, global_batch=1792, bytes_per_image=50_000)
SMALL = Work(parameters=1000, flops_per_image=1e6, global_batch=96, small_parameters=200)
NODE = Machine(flops=4e14, memory_rate=3e12, devices_per_node=8, inside_rate=4e11, outside_rate=5e10)
STAGES = (0, 1, 2, 3)


def shape(work: Work, ranks: int, stage: int, micro: int = 64) -> Shape:
    batch = make_batch_layout(work.global_batch, ranks, micro)
    return Shape(ranks, batch.micro, batch.accumulation, stage)


def test_bytes_by_stage_are_those_worked_out_by_hand() -> None:
    # 4 ranks, so a share of 3/4; 1,000 parameters, 200 of them in small tensors; 3 passes
    sent = {stage: traffic(SMALL, Shape(4, 8, 3, stage)) for stage in STAGES}
    assert sent[0].bytes == 2 * 0.75 * 4000  # one all-reduce of fp32 gradients
    assert sent[1].bytes == 6000 + 0.75 * 2000  # and one all-gather of bf16 weights
    assert sent[2].bytes == 3 * 6000 + 0.75 * 2000  # the all-reduce after every pass
    assert sent[3].gradient_bytes == 3 * 0.75 * 4000  # a reduce-scatter after every pass
    assert sent[3].weight_bytes == 0.75 * 2 * (3 * 800 + 200)  # large tensors every pass, small ones once
    assert [sent[stage].gradient_rounds for stage in STAGES] == [2, 2, 6, 3]
    assert [sent[stage].weight_rounds for stage in STAGES] == [0, 2, 2, 3 * 2 + 1]


def test_gloo_reduces_everything_where_it_should_scatter() -> None:
    layout = Shape(4, 8, 3, 3)
    assert traffic(SMALL, layout, scatter_by_all_reduce=True).gradient_bytes == 3 * 2 * 0.75 * 4000


def test_fp32_weights_are_twice_as_long_on_the_wire() -> None:
    wide, layout = replace(SMALL, weight_bytes=4), Shape(2, 8, 1, 1)
    assert traffic(wide, layout).weight_bytes == 2 * traffic(SMALL, layout).weight_bytes


def test_the_buckets_are_those_the_trainer_asks_for() -> None:
    assert deepspeed_config.BUCKET == BUCKET


def test_a_vit_l_is_seven_buckets_at_zero_2_and_3_and_gathered_once_a_pass() -> None:
    assert [buckets(VIT_L, stage) for stage in STAGES] == [1, 1, 7, 7]
    assert buckets(VIT_L, 2, bucket=500_000_000) == 1
    assert gathers_per_pass(VIT_L) == 1
    huge = replace(VIT_L, parameters=632_000_000)
    assert [buckets(huge, stage) for stage in STAGES] == [2, 2, 13, 13]
    assert gathers_per_pass(huge) == 2


def test_no_setting_moves_zero_1_s_buckets() -> None:
    layout = shape(VIT_L, 16, 1)
    assert traffic(VIT_L, layout, bucket=1_000_000) == traffic(VIT_L, layout)


def test_a_step_on_one_device_is_arithmetic_alone() -> None:
    # 28 passes of 64 x 125 GFLOP at 400 TFLOP/s: 0.56 s; of 330e6 parameters at 3 TB/s, AdamW moves
    # 86 bytes: 9.46 ms, and DeepSpeed 10 a pass and 32 a step: 312 bytes, 34.32 ms
    step = forecast(VIT_L, shape(VIT_L, 1, 1), NODE)
    assert step.compute_s == pytest.approx(0.56)
    assert step.update_s == pytest.approx(0.00946)
    assert step.copying_s == pytest.approx(0.03432)
    assert step.step_s == pytest.approx(0.60378)
    assert step.images_per_s == pytest.approx(1792 / 0.60378)
    assert step.store_rate_needed == pytest.approx(1792 * 50_000 / 0.60378)


def test_two_nodes_send_at_the_rate_between_them() -> None:
    # 16 ranks: all-reduce 2 x 15/16 x 1.32 GB + all-gather 15/16 x 0.66 GB = 3.09375 GB at 50 GB/s
    step = forecast(VIT_L, shape(VIT_L, 16, 1), NODE)
    assert step.sent_bytes == pytest.approx(3.09375e9)
    assert step.communication_s == step.exposed_s == pytest.approx(3.09375e9 / 5e10)
    assert step.compute_s == pytest.approx(2 * 56 * 125e9 / 4e14)
    inside = forecast(VIT_L, shape(VIT_L, 8, 1), NODE)
    assert inside.communication_s == pytest.approx((2 * 1.32e9 + 0.66e9) * 7 / 8 / 4e11)


def test_every_hop_waits_its_latency() -> None:
    # 16 ranks on 2 nodes: of 15 hops 2 are between nodes; ZeRO 1 goes round 2 times to reduce, 2 to gather
    slow, layout = replace(NODE, outside_latency=1e-3, inside_latency=1e-5), shape(VIT_L, 16, 1)
    added = forecast(VIT_L, layout, slow).step_s - forecast(VIT_L, layout, NODE).step_s
    assert added == pytest.approx(4 * (2 * 1e-3 + 13 * 1e-5))
    assert slow.round_latency(8) == pytest.approx(7e-5)
    assert slow.round_latency(1) == 0


def test_padding_is_lost_compute() -> None:
    layout = shape(VIT_L, 5, 1)  # 1792 over 5 ranks: 359 each, 6 passes of 60: 1,800 slots
    assert layout.slots == 1800
    step = forecast(VIT_L, layout, NODE)
    assert step.padding == pytest.approx(8 / 1800)
    assert step.compute_s * 5 == pytest.approx(1800 * 125e9 / 4e14)


def test_a_pass_takes_at_least_its_launch() -> None:
    step = forecast(VIT_L, shape(VIT_L, 256, 1), replace(NODE, launch=0.02))  # 7 images: 2.2 ms of work
    assert step.compute_s == 0.02


def test_the_last_bucket_is_what_nothing_hides() -> None:
    # ZeRO 2: of 7 buckets 6 may travel behind the passes; DeepSpeed's own size makes them one, and ZeRO 1 waits
    layout = shape(VIT_L, 16, 2)
    gradient = traffic(VIT_L, layout).gradient_bytes / 5e10
    step = forecast(VIT_L, layout, NODE, overlap=1)
    assert step.communication_s - step.exposed_s == pytest.approx(min(6 / 7 * gradient, step.compute_s))
    half = forecast(VIT_L, layout, NODE, overlap=0.1)
    assert half.communication_s - half.exposed_s == pytest.approx(0.1 * 6 / 7 * gradient)
    for one in (
        forecast(VIT_L, layout, NODE, overlap=1, bucket=500_000_000),
        forecast(VIT_L, shape(VIT_L, 16, 1), NODE, overlap=1),
    ):
        assert one.exposed_s == one.communication_s


def test_a_slow_store_sets_the_pace() -> None:
    step = forecast(VIT_L, shape(VIT_L, 16, 1), replace(NODE, store_rate=1e8), copies=1.5)
    assert step.data_s == step.step_s == pytest.approx(1792 * 50_000 * 1.5 / 2 / 1e8)
    assert step.store_rate_needed == pytest.approx(1e8)


@pytest.mark.parametrize("stage", STAGES)
def test_one_rank_sends_nothing(stage: int) -> None:
    step = forecast(VIT_L, shape(VIT_L, 1, stage), NODE)
    assert step.sent_bytes == step.communication_s == step.exposed_s == 0


@pytest.mark.parametrize("stage", STAGES)
def test_bytes_for_ever_more_ranks_come_to_a_limit(stage: int) -> None:
    most = Shape(10**9, 1, 1, stage)
    factor = {0: 8, 1: 10, 2: 10, 3: 6}[stage]  # bytes for each parameter
    assert traffic(VIT_L, most).bytes == pytest.approx(factor * 330e6, rel=1e-6)


ranks = st.integers(1, 2000)
stages = st.sampled_from(STAGES)


@given(ranks, ranks, stages, st.integers(1, 64))
def test_more_ranks_send_more_each(few: int, many: int, stage: int, passes: int) -> None:
    few, many = sorted((few, many))
    sent = [traffic(VIT_L, Shape(n, 4, passes, stage)) for n in (few, many)]
    assert sent[0].bytes <= sent[1].bytes
    assert sent[1].bytes < (2 * passes + 2) * (GRADIENT_BYTES + 2) * VIT_L.parameters


@given(ranks, st.integers(1, 64), st.integers(1, 64))
def test_passes_cost_stage_1_nothing_and_the_others_their_number(n: int, few: int, more: int) -> None:
    few, more = sorted((few, more))
    sent = {(p, s): traffic(VIT_L, Shape(n, 4, p, s)).bytes for p in (few, more) for s in STAGES}
    assert sent[few, 1] == sent[more, 1]
    assert sent[few, 2] <= sent[more, 2]
    assert sent[few, 3] <= sent[more, 3]
    assert sent[more, 0] <= sent[more, 1] <= sent[more, 2]


@given(ranks, stages, st.floats(0, 1), st.floats(1, 10), st.integers(1_000_000, WHOLE_BUCKET))
def test_better_hardware_is_never_slower(
    n: int, stage: int, overlap: float, times: float, bucket: int
) -> None:
    layout = shape(VIT_L, n, stage)
    base = replace(NODE, launch=0.01, inside_latency=1e-6, outside_latency=5e-6, store_rate=1e9)
    step = forecast(VIT_L, layout, base, overlap, bucket=bucket)
    for name in ("flops", "memory_rate", "inside_rate", "outside_rate", "store_rate"):
        faster = replace(base, **{name: getattr(base, name) * times})
        assert forecast(VIT_L, layout, faster, overlap, bucket=bucket).step_s <= step.step_s * (1 + 1e-9)
    for name in ("launch", "inside_latency", "outside_latency"):
        slower = replace(base, **{name: getattr(base, name) * times})
        assert forecast(VIT_L, layout, slower, overlap, bucket=bucket).step_s >= step.step_s * (1 - 1e-9)
    assert 0 <= step.exposed_s <= step.communication_s
    assert forecast(VIT_L, layout, base, 0.0, bucket=bucket).step_s >= step.step_s
    alone = forecast(VIT_L, shape(VIT_L, 1, stage), base)
    assert step.images_per_s <= n * alone.images_per_s * (1 + 1e-9)


def test_the_assumptions_are_sentences() -> None:
    assert all(text.endswith(".") and text[0].isupper() for text in ASSUMPTIONS)
