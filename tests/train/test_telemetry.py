import pytest

from retfound_dist.train.telemetry import Clock, Display, duration


def test_rates_are_means_since_the_last_call() -> None:
    clock = Clock(steps=4, data_wait=2.0)
    rates = clock.rates(global_batch=8)
    assert rates["data_wait_s"] == 0.5
    assert rates["images_per_s"] == pytest.approx(8 / rates["step_s"])
    assert (clock.steps, clock.data_wait) == (0, 0.0)


@pytest.mark.parametrize(
    ("seconds", "said"), [(45, "45 s"), (720, "12 min"), (12600, "3.5 h"), (181440, "2.1 days")]
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


ROW = {"step": 10, "loss": 0.5, "images_per_s": 80.0, "lr": 1e-3, "step_s": 2.0}


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(total=40, shown=True) as display:
        display.show(ROW, 0)
        display.show({**ROW, "step": 11}, 0)
    said = capsys.readouterr().err
    assert said.splitlines() == ["step 10/40  loss 0.5000  80 images/s  lr 1.00e-03  60 s left"]


def test_quiet_says_nothing_but_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(total=40, shown=False) as display:
        display.show(ROW, 0)
        display.say("news")
        display.warn("bad sample")
    assert capsys.readouterr().err == "bad sample\n"
