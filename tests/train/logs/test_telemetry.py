import time

import psutil
import pytest

from retfound_dist.train.logs.telemetry import (
    Clock,
    memory_gb,
    process_began,
    show_step,
    step_details,
    training_display,
)


def test_rates_are_means_since_the_last_call() -> None:
    clock = Clock(steps=4, data_wait=2.0)
    rates = clock.rates(global_batch=8)
    assert rates["data_wait_s"] == 0.5
    assert rates["images_per_s"] == pytest.approx(8 / rates["step_s"])
    assert (clock.steps, clock.data_wait) == (0, 0.0)


ROW = {"step": 10, "loss": 0.5, "images_per_s": 80.0, "lr": 1e-3, "step_s": 2.0}


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with training_display(shown=True) as display:
        display.begin("pretraining", "steps")
        show_step(display, ROW, 40, 0)
        show_step(display, {**ROW, "step": 11}, 40, 0)
        show_step(display, {**ROW, "step": 40}, 40, 0)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "pretraining: 10 of 40 steps, loss 0.5000, lr 1.00e-03, 80 images/s, 60 s left",
        "pretraining: 40 of 40 steps, loss 0.5000, lr 1.00e-03, 80 images/s, 0 s left",
    ]


def test_quiet_says_nothing_but_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with training_display(shown=False) as display:
        display.begin("pretraining", "steps")
        show_step(display, ROW, 40, 0)
        display.say("a line")
        display.warn("bad sample")
    assert capsys.readouterr().err == "bad sample\n"


LARGE = {
    "step": 81600, "epoch": 799.99, "loss": 0.41234, "grad_norm": 12.3456, "lr": 1.05e-3, "images_per_s": 38123.4,
    "mfu": 0.613, "data_wait_s": 0.0123, "step_s": 0.471, "memory_gb": 139.8, "world_size": 224,
}  # fmt: skip


def test_the_panel_fits_into_80_columns_and_says_what_matters() -> None:
    first, second = step_details(LARGE, 81500)
    assert max(len(first), len(second)) <= 80
    assert all(text in first for text in ("799.99", "0.4123", "12.3456", "1.05e-03", "checkpoint 81500"))
    assert all(text in second for text in ("MFU 61%", "data wait 2.6%", "memory 139.8 GB", "224 ranks"))
    assert "not finite" in step_details({**LARGE, "loss": None}, 0)[0]


def test_own_time_is_the_wait_and_the_forward_passes() -> None:
    clock = Clock(steps=2)
    for _ in range(2):
        with clock.waiting():
            time.sleep(0.02)
        with clock.forward():
            time.sleep(0.03)
        time.sleep(0.1)  # the backward pass
    assert 0.045 < clock.rank_s() < 0.1


def test_memory_and_age_of_this_process_are_its_own() -> None:
    assert 0.05 < memory_gb() < 100
    assert abs(process_began() - psutil.Process().create_time()) < 1.5
