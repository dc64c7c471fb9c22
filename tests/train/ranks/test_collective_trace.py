"""A rank that hangs says which collective it waits in, and leaves its last ones with the run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from retfound_dist.train.ranks import collective_trace
from retfound_dist.train.ranks.watchdog import HUNG

RANK = """
import sys, time, torch
import torch.distributed as dist
from retfound_dist.runtime.world import World
from retfound_dist.train.ranks.watchdog import Watchdog

dist.init_process_group("gloo")
rank = dist.get_rank()
dog = Watchdog(World(rank, 2, rank), 0.03, sys.argv[1])
dog.start()
dist.all_reduce(torch.ones(4))
dog.step_done(7)
if rank == 0:
    dist.all_reduce(torch.ones(3, 5))
time.sleep(60)
"""


@pytest.mark.skipif(torch.__version__ < "2.15", reason="an older torch records no collectives of gloo")
def test_the_rank_that_waits_and_the_one_it_waits_for_are_told_apart(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = []
    for rank in (0, 1):
        env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "RANK": str(rank)}
        env = {name: text for name, text in os.environ.items() if name != "TORCHELASTIC_RUN_ID"} | env
        command = [sys.executable, "-c", RANK, str(tmp_path)]
        ranks.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate(timeout=120)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [HUNG, HUNG]
    assert (
        "rank 0: this rank waits in gloo:all_reduce, number 2 of group 0 (shapes [[3, 5]]); all are in "
        in errors[0]
    )
    assert "rank 1: this rank waits in no collective; the last one was gloo:all_reduce, number 1" in errors[1]
    traces = [tmp_path / f"hangs/step_00000007_rank_{rank:03d}.json" for rank in (0, 1)]
    assert [len(json.loads(trace.read_text())["gloo"]["entries"]) for trace in traces] == [2, 1]


def test_a_store_that_does_not_answer_does_not_keep_the_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {
        "profiling_name": "nccl:all_gather",
        "collective_seq_id": 9,
        "retired": True,
        "input_sizes": [[2]],
    }
    monkeypatch.setattr(collective_trace, "read_traces", lambda: {"nccl": {"entries": [entry]}})
    monkeypatch.setattr(collective_trace, "WRITE_S", 0.1)
    answered = threading.Event()
    monkeypatch.setattr(collective_trace.storage, "write_json", lambda *_: answered.wait(60))
    began = time.monotonic()
    text = collective_trace.record_hang("s3://bucket/run", 3, 1)
    answered.set()
    assert time.monotonic() - began < 30
    assert text == (
        "this rank waits in no collective; the last one was nccl:all_gather, number 9 of group ? (shapes [[2]]); "
        "s3://bucket/run/hangs/step_00000003_rank_001.json could not be written"
    )


def test_a_torch_without_the_recorder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collective_trace, "read_traces", dict)
    assert collective_trace.record_hang("/nowhere", 3, 1) == "torch recorded no collectives"


def test_an_error_while_it_is_recorded_is_told_and_does_not_keep_the_rank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collective_trace, "read_traces", lambda: {"nccl": {"entries": [7]}})
    text = collective_trace.record_hang("/nowhere/run", 3, 1)
    assert text.startswith(
        "/nowhere/run/hangs/step_00000003_rank_001.json could not be written; AttributeError"
    )
