"""A store that does not answer is named within ten seconds and every ten seconds, by every command."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from retfound_dist.errors import StorageError
from retfound_dist.io import slow_store, storage
from tests import ROOT

SAID = re.compile(
    r"retfound: waiting for (\S+) \(to .+\), (?:without an answer|trying again) for (\d+) s.*; giving up in (\d+) s, "
    r"at \d\d:\d\d:\d\d, at the latest$"
)


@pytest.fixture(params=["silent", "dropped", "closed"])
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address where: connections are taken and nothing is said; packets are dropped; nothing listens."""
    with ExitStack() as held:
        listening = held.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listening.listen(100)
        elif request.param == "dropped":  # the queue is full: Linux lets further requests to connect fall
            listening.listen(0)
            for _ in range(3):
                one = held.enter_context(socket.socket())
                one.setblocking(False)
                one.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def environment(endpoint: str) -> dict[str, str]:
    known = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    return {**os.environ, **known, "AWS_ENDPOINT_URL": endpoint}


COMMANDS = (
    ("runs", "s3://bucket/folder"),
    ("verify", "s3://bucket/folder"),
    ("pretrain", "configs/demo/pretrain.toml", "data.shards=s3://bucket/folder", "run.url=s3://bucket/run"),
    ("embed", "s3://bucket/folder", "images", "--out", "s3://bucket/out.npz"),
)


@pytest.mark.slow
def test_every_command_says_what_it_waits_for_and_until_when(endpoint: str) -> None:
    root = ROOT
    start, env = [sys.executable, "-m", "retfound_dist"], environment(endpoint)
    processes = [
        subprocess.Popen([*start, *command], stderr=subprocess.PIPE, text=True, cwd=root, env=env)
        for command in COMMANDS
    ]
    try:
        for number, process in enumerate(processes):
            assert process.stderr is not None
            lines = [process.stderr.readline().strip() for _ in range(1 if number else 2)]
            matches = [SAID.match(line) for line in lines]
            assert all(matches), lines
            silent = [int(match[2]) for match in matches if match]
            assert silent[0] <= 10
            assert silent[1:] == [] or 8 <= silent[1] - silent[0] <= 11
            assert all(int(m[2]) + int(m[3]) in range(118, 122) for m in matches if m)
            assert all(m[1].startswith("s3://bucket/") for m in matches if m)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", ["silent"], indirect=True)
def test_patience_ends_when_it_was_told_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)
    storage._filesystem.cache_clear()
    monkeypatch.setattr(slow_store, "DEFAULT_LIMIT_S", 4.0)
    with pytest.raises(StorageError, match="cannot look at s3://bucket/x: Read timeout"):
        storage.exists("s3://bucket/x")  # one try, where eight would have taken minutes
    assert slow_store._waits == {}
    storage._filesystem.cache_clear()


def test_nothing_is_said_too_soon_twice_or_of_a_store_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_store, "_last_announced", 0.0)
    monkeypatch.setattr(slow_store, "_last_answer", 0.0)
    monkeypatch.setattr(slow_store, "_last_failure", "")
    waits = [slow_store._Wait("s3://b/x (to read)", 100.0, 160.0)]
    assert slow_store.due_line(waits, 105.0, 0.0) == ""
    assert "without an answer for 8 s; giving up in 52 s, at " in slow_store.due_line(waits, 108.0, 0.0)
    assert slow_store.due_line(waits, 110.0, 0.0) == ""
    assert "for 18 s" in slow_store.due_line(waits, 118.0, 0.0)
    monkeypatch.setattr(slow_store, "_last_answer", 125.0)
    assert slow_store.due_line(waits, 130.0, 0.0) == ""
    whole = slow_store._Wait("s3://b", 90.0, 690.0, quiet=True)
    assert slow_store.due_line([whole], 150.0, 0.0) == ""
    full = slow_store._Wait("/disk/x", 100.0, 160.0, reason="the disk at /disk is full")
    monkeypatch.setattr(slow_store, "_last_announced", 0.0)
    line = slow_store.due_line([full], 150.0, 0.0)
    assert line.startswith(
        "retfound: waiting for /disk/x, trying again for 50 s (the disk at /disk is full); giving up in 10 s, at "
    )
    monkeypatch.setattr(slow_store, "_last_announced", 0.0)
    assert (
        "waiting for s3://b/x (to read), without an answer for 25 s; giving up in 575 s"
        in slow_store.due_line([*waits, whole], 150.0, 0.0)
    )
    monkeypatch.setattr(slow_store, "_last_announced", 0.0)
    failing = slow_store._Wait("s3://b/y", 100.0, 400.0, "it answers 503")
    assert "for 30 s (it answers 503); giving up in 270 s" in slow_store.due_line([failing], 130.0, 0.0)


def test_time_counts_only_while_something_is_asked_and_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_store.time, "monotonic", lambda: 200.0)
    monkeypatch.setattr(slow_store, "_last_answer", 0.0)
    whole = slow_store._Wait("s3://b", 100.0, 110.0, quiet=True)
    listing = slow_store._Wait("s3://b/x (to list)", 195.0, 315.0)
    refused = slow_store._Wait("s3://b/y", 101.0, 111.0, "access denied")
    for waits, answer, over in (
        ([whole], 0.0, False),  # nothing is asked: between two requests this machine works
        ([whole, listing], 0.0, False),
        ([whole, replace(listing, since=190.0)], 0.0, True),
        ([whole, replace(listing, since=190.0)], 195.0, False),
        ([whole, refused, listing], 0.0, True),
        ([whole, refused, listing], 199.0, False),  # it answers, so this request may be asked
    ):
        monkeypatch.setattr(slow_store, "_waits", dict(enumerate(waits)))
        monkeypatch.setattr(slow_store, "_last_answer", answer)
        assert slow_store.is_time_up() == over, (waits, answer)


def test_of_a_node_s_ranks_the_first_speaks() -> None:
    assert slow_store.may_print({})
    assert slow_store.may_print({"LOCAL_RANK": "0", "RANK": "8"})
    assert not slow_store.may_print({"LOCAL_RANK": "1"})
    assert not slow_store.may_print({"SLURM_LOCALID": "3"})


def test_processes_that_share_a_turn_do_not_speak_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow_store, "_turn_file", str(tmp_path / "turns"))
    assert slow_store._take_turn()
    assert not slow_store._take_turn()
    os.utime(tmp_path / "turns", (0, 0))
    assert slow_store._take_turn()
    monkeypatch.setattr(slow_store, "_turn_file", "")
    assert slow_store._take_turn()
    assert slow_store._take_turn()
