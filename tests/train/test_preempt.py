"""Asked to stop, a run saves where it is and leaves with 0; asked twice, it leaves at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retfound_dist import commit
from retfound_dist.train.preempt import GRACE, StopRequest
from tests.stream.stream_inputs import make_set
from tests.train.launching import ROOT, SMALL, metrics, pretrain, start


def test_nobody_asked_nobody_leaves() -> None:
    assert not StopRequest().asked


def test_the_clock_asks_too() -> None:
    asked = StopRequest(max_minutes=0.05 / 60)
    assert not asked.asked
    time.sleep(0.06)
    assert asked.asked
    assert asked.out_of_time


def test_a_second_signal_later_leaves_at_once_and_one_in_the_same_breath_does_not() -> None:
    code = (
        "import os, signal, sys, time\n"
        "from retfound_dist.train.preempt import GRACE, StopRequest\n"
        "asked = StopRequest(); asked.listen()\n"
        "os.kill(os.getpid(), signal.SIGUSR1); os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('noted', asked.asked_at > 0, flush=True)\n"
        "asked.asked_at -= 10\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(5); print('still here')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "noted True\n")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_run_asked_to_stop_saves_leaves_with_0_and_goes_on_later(
    number: signal.Signals, tmp_path: Path
) -> None:
    shards, run = make_set(tmp_path, count=30).url, tmp_path / "run"
    endless = ["train.steps=100000", "checkpoint.every_steps=50000", "train.precision=fp32", *SMALL]
    command = [sys.executable, "-m", "retfound_dist", "pretrain", "configs/demo/pretrain.toml"]
    process = subprocess.Popen(
        [*command, f"run.url={run}", f"data.shards={shards}", *endless],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(600):
        if (run / "metrics.jsonl").exists() and len(metrics(run)) > 3:
            break
        time.sleep(0.2)
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    step = metrics(run)[-1]["step"]
    assert commit.list_steps(str(run)) == [step]
    assert f"stopped as asked at step {step}" in said
    again = pretrain(1, run, shards, *endless, f"train.stop_at_step={step + 2}")
    assert again.returncode == 0, again.stderr
    assert [row["step"] for row in metrics(run)] == list(range(1, step + 3))


@pytest.mark.slow
def test_a_second_signal_leaves_at_once_though_the_save_hangs(tmp_path: Path) -> None:
    shards, run = make_set(tmp_path, count=30).url, tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").touch()  # where the folder should be: every write fails, and is tried again
    process = start(
        1, run, shards, "train.steps=100000", "checkpoint.every_steps=50000", "train.precision=fp32"
    )
    for _ in range(600):
        if (run / "metrics.jsonl").exists() and len(metrics(run)) > 3:
            break
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    time.sleep(GRACE + 3)
    assert process.poll() is None
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGUSR1
