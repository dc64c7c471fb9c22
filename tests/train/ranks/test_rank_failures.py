"""A rank that fails tells the others, and all leave."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from retfound_dist.formats import run_folder
from retfound_dist.train.ranks.rank_failures import Failure
from tests.stream.stream_inputs import make_set
from tests.train.launching import metrics, start

RANK = """
import sys, time
import torch, torch.distributed as dist
from retfound_dist.errors import DataError
from retfound_dist.train.ranks.rank_failures import RankFailures
from retfound_dist.train.ranks.collectives import RankGroup
from retfound_dist.train.ranks.watchdog import Watchdog
from retfound_dist.runtime.world import read_world
import os

dist.init_process_group("gloo")
world = read_world(os.environ)
watchdog = Watchdog(world, 0)
watchdog.step_done(7)
failures = RankFailures(RankGroup(world, torch.device("cpu")), watchdog)
failures.exit_callbacks.append(lambda failed: print("written", [f.event_fields()["rank"] for f in failed], flush=True))
try:
    if sys.argv[1] == "alike":
        raise DataError("what is wrong and what to do")
    if world.rank == 1:
        raise KeyError("crop")
    dist.all_reduce(torch.ones(1))  # never ends: rank 1 does not come
except Exception as error:
    failures.report_and_exit(error)
"""


def ranks(kind: str, count: int = 3) -> tuple[list[int], list[str], list[str], float]:
    """Ranks without a launcher: exit codes, what each printed, and seconds until the last one had left."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, kind],
            env=os.environ | where | {"RANK": str(rank)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(count)
    ]
    begun = time.monotonic()
    outputs = [process.communicate(timeout=120) for process in started]
    took = time.monotonic() - begun
    return [p.returncode for p in started], [out for out, _ in outputs], [err for _, err in outputs], took


def ours(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("retfound: ")]


@pytest.mark.slow
def test_a_rank_that_fails_takes_the_others_out_of_their_collective_and_is_named_once_by_rank_0() -> None:
    codes, wrote, outputs, took = ranks("one")
    assert codes == [70, 70, 70]
    assert took < 100  # the collective would wait for half an hour
    (line,) = ours(outputs[0])
    assert line.startswith("retfound: rank 1 (")
    assert "KeyError: 'crop'" in line
    assert wrote[0] == "written [1]\n"
    assert not ours(outputs[1])
    assert not ours(outputs[2])


@pytest.mark.slow
def test_an_error_that_all_ranks_share_is_told_once_and_of_none_of_them() -> None:
    codes, _, outputs, _ = ranks("alike")
    assert codes == [2, 2, 2]
    assert [ours(text) for text in outputs] == [["retfound: what is wrong and what to do"], [], []]


def test_a_failure_says_who_and_where_and_keeps_its_traceback_for_the_log() -> None:
    failure = Failure(3, "node7", 12, "KeyError: 'crop'", traceback="Traceback ...")
    assert failure.describe().startswith("rank 3 (node7): KeyError: 'crop'")
    assert "--debug" in failure.describe()
    told = {"rank": 3, "host": "node7", "step": 12, "error": "KeyError: 'crop'", "traceback": "Traceback ..."}
    assert failure.event_fields() == told
    assert "traceback" not in Failure(3, "node7", 12, "no such shard").event_fields()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["loader", "memory"])
def test_what_ends_only_rank_1_is_told_once_on_the_terminal_and_in_the_log_and_nothing_is_left(
    what: str, tmp_path: Path
) -> None:
    run, shards = tmp_path / "run", make_set(tmp_path, count=30).url
    agent = start(2, run, shards, "train.steps=100000", "train.precision=fp32", "data.workers=1", "--debug")
    end = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() or len(metrics(run)) < 3:
        assert time.monotonic() < end, agent.communicate(timeout=5)
        time.sleep(0.1)
    family = psutil.Process(agent.pid).children(recursive=True)
    rank = next(p for p in family if "pretrain" in p.cmdline() and p.environ().get("RANK") == "1")
    if what == "memory":
        rank.rlimit(psutil.RLIMIT_AS, (1 << 20, 1 << 20))  # the next allocation fails
    else:
        loaders = [p for p in rank.children(recursive=True) if p.parent() != rank and not p.children()]
        for loader in loaders:
            loader.send_signal(signal.SIGKILL)
    _, outputs = agent.communicate(timeout=60)
    assert agent.returncode != 0
    (event,) = [row for row in run_folder.read_rows(str(run), run_folder.EVENTS) if row["event"] == "failed"]
    assert event["rank"] == 1
    assert event["step"] - metrics(run)[-1]["step"] in (0, 1)  # a step's row is written after the step
    (line,) = ours(outputs)
    assert line.startswith(f"retfound: rank 1 ({event['host']}): {event['error']}")
    assert ("a loader process died" in line) == (what == "loader")
    assert ("Traceback" in event.get("traceback", "")) == (what == "memory")
    assert outputs.count('retfound_dist/train/trainer.py"') == (what == "memory")  # shown for --debug, once
    assert not (run / "LOCK.json").exists()
    alive = psutil.wait_procs(family, timeout=10)[1]
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
