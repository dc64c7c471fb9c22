"""Asked to stop, a run saves where it is and leaves with 0 (Ctrl-C: 130); asked twice, it leaves at once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from retfound_dist.formats import checkpoint_folder
from retfound_dist.runtime.world import World
from retfound_dist.train.ranks.collectives import RankGroup
from retfound_dist.train.ranks.preemption import REPEAT_WINDOW_S, STOP_FILE_VARIABLE, StopRequest
from retfound_dist.train.run_setup import StoppedError, stop_if_requested
from tests.stream.stream_inputs import make_set
from tests.train.launching import ROOT, SMALL, metrics, pretrain, start

ENDLESS = ["train.steps=100000", "checkpoint.every_steps=50000", "train.precision=fp32"]


def test_nobody_asked_nobody_leaves() -> None:
    assert not StopRequest().requested


def test_the_clock_asks_too() -> None:
    request = StopRequest(max_minutes=0.05 / 60)
    assert not request.requested
    time.sleep(0.06)
    assert request.requested
    assert request.out_of_time


LISTENS = """
import os, signal, subprocess, sys, time
from retfound_dist.train.ranks.preemption import Stage, StopRequest
request = StopRequest(); request.listen()
def ask(number):
    os.kill(os.getpid(), number)
    time.sleep(0.3)
"""


def listening(code: str, **more: str) -> tuple[int, str]:
    """How a process that listens for requests ends, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", LISTENS + code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | more,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_second_signal_later_leaves_at_once_and_one_in_the_same_breath_does_not() -> None:
    code = (
        "request.stage = Stage.TRAINING\n"
        "ask(signal.SIGUSR1); ask(signal.SIGTERM)\n"
        "print('noted', request.requested_at > 0, flush=True)\n"
        "request.requested_at -= 10\n"
        "ask(signal.SIGTERM)\n"
        "print('still here')"
    )
    assert listening(code) == (128 + signal.SIGTERM, "noted True\n")


def test_it_is_heard_though_the_main_thread_is_in_foreign_code() -> None:
    code = (
        "import ctypes, threading\n"
        "request.stage, request.report = Stage.TRAINING, lambda text: print(text, flush=True)\n"
        "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "threading.Timer(1.8, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "ctypes.CDLL(None).sleep(60)"  # no handler of Python's runs in there
    )
    begun = time.monotonic()
    status, messages = listening(code)
    assert status == 130
    assert messages.startswith("asked to stop (Ctrl-C): saving after this step")
    assert time.monotonic() - begun < 40


def test_a_process_started_by_a_rank_does_not_die_of_what_others_send_to_every_process() -> None:
    code = (
        "request.stage = Stage.TRAINING\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(0.5)'],"
        " stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "for number in (signal.SIGTERM, signal.SIGUSR1): child.send_signal(number)\n"
        "print(child.wait())"
    )
    assert listening(code) == (0, "0\n")


def test_ranks_that_were_asked_before_they_listened_leave(tmp_path: Path) -> None:
    (tmp_path / "asked").touch()
    status, messages = listening("print('still here')", **{STOP_FILE_VARIABLE: str(tmp_path / "asked")})
    assert (status, "nothing to save" in messages, "still here" in messages) == (0, True, False)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGUSR1, 0), (signal.SIGINT, 130)])
def test_a_run_that_is_stopped_while_it_starts_leaves_at_once(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    (tmp_path / "set").mkdir()
    os.mkfifo(tmp_path / "set" / "manifest.json")  # reading the shard set does not end
    process = start(1, tmp_path / "run", str(tmp_path / "set"))
    blocked = Path(f"/proc/{process.pid}/status")

    def listens() -> bool:
        mask = next(line for line in blocked.read_text().splitlines() if line.startswith("SigBlk"))
        return bool(int(mask.split()[1], 16) >> (number - 1) & 1)

    wait_for(listens)
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"retfound: stopped by {number.name} before the first step: nothing to save" in messages
    assert not (tmp_path / "run").exists()


def one_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    request = StopRequest()
    group, messages = RankGroup(World(rank, 2, rank), torch.device("cpu")), list[str]()
    begin = SimpleNamespace(group=group, stop_request=request, display=SimpleNamespace(say=messages.append))
    stop_if_requested(begin)  # type: ignore[arg-type]
    request.requested_at = float(rank)
    try:
        stop_if_requested(begin)  # type: ignore[arg-type]
    except StoppedError:
        Path(folder, str(rank)).write_text(messages[0])
    dist.destroy_process_group()


def test_asked_of_one_rank_while_they_set_up_all_leave_together(tmp_path: Path) -> None:
    mp.start_processes(one_rank, (str(tmp_path),), nprocs=2, start_method="spawn")
    assert all("before the first step" in (tmp_path / str(rank)).read_text() for rank in range(2))


def wait_for(condition: Callable[[], bool], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def trains(run: Path) -> Callable[[], bool]:
    return lambda: (run / "metrics.jsonl").exists() and len(metrics(run)) > 3


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_run_asked_to_stop_saves_leaves_and_goes_on_later(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """Every process of it is asked: its loaders, their server and the one that uploads too."""
    shards, run = make_set(tmp_path, count=30).url, tmp_path / "run"
    process = start(1, run, shards, *ENDLESS, "data.workers=2")
    wait_for(trains(run))
    for each in [*psutil.Process(process.pid).children(recursive=True), process]:
        each.send_signal(number)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == code, messages
    step = metrics(run)[-1]["step"]
    assert checkpoint_folder.list_steps(str(run)) == [step]
    assert f"stopped as asked at step {step}" in messages
    assert "Traceback" not in messages
    if number == signal.SIGTERM:
        again = pretrain(1, run, shards, *ENDLESS, f"train.stop_at_step={step + 2}")
        assert again.returncode == 0, again.stderr
        assert [row["step"] for row in metrics(run)] == list(range(1, step + 3))


@pytest.mark.slow
def test_a_second_signal_leaves_at_once_though_the_save_hangs(tmp_path: Path) -> None:
    shards, run = make_set(tmp_path, count=30).url, tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").touch()  # where the folder should be: every write fails, and is tried again
    process = start(1, run, shards, *ENDLESS)
    wait_for(trains(run))
    process.send_signal(signal.SIGTERM)
    time.sleep(REPEAT_WINDOW_S + 3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_torchrun_waits_for_a_save_that_takes_long(number: signal.Signals, tmp_path: Path) -> None:
    shards, run = make_set(tmp_path, count=30).url, tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").touch()
    script = [
        str(ROOT / "launch" / "local.sh"),
        "configs/demo/pretrain.toml",
        f"run.url={run}",
        *SMALL,
        *ENDLESS,
    ]
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT")}
    env |= {"RANKS_PER_NODE": "2", "VENV": str(Path(sys.executable).parents[1])}
    agent = subprocess.Popen([*script, f"data.shards={shards}", "train.grace_s=97"], cwd=ROOT, env=env)
    wait_for(trains(run))
    assert psutil.Process(agent.pid).environ()["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "97"
    agent.send_signal(number)
    time.sleep(4)
    assert agent.poll() is None
    (run / "checkpoints").unlink()  # now the save can end
    agent.wait(100)
    assert checkpoint_folder.list_steps(str(run)) == [metrics(run)[-1]["step"]]
