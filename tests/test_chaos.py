"""What the storm of benchmarks/chaos.py draws, and that each of its checks sees what it is for."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from benchmarks.chaos_faults import COMMANDS, FULL, KILL, PLACES, disks_of, episodes, kill, rules
from benchmarks.chaos_jobs import JOBS, PREDICTED, RUN, SET, differences, nearly_equal, readable
from benchmarks.chaos_processes import NOTICE, WatchedProcess, unreported
from retfound_dist.config.schema import PackConfig, PackOut, Phantom, Source
from retfound_dist.io import slow_store
from shards.pack import pack

ROUND = len(COMMANDS) * (sum(map(len, PLACES.values())) + 4)  # kills come thrice in each of two places


def test_the_same_seed_gives_the_same_faults_and_another_seed_others() -> None:
    drawn = [list(islice(episodes(seed), 2 * ROUND)) for seed in (5, 5, 6)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_storm_over_some_commands_has_the_same_episodes_of_them() -> None:
    all_of_them = [one for one in islice(episodes(5), ROUND) if one.command == "embed"]
    assert list(islice(episodes(5, ["embed"]), len(all_of_them))) == all_of_them


def test_each_round_has_every_fault_of_every_command_in_every_place() -> None:
    for begin in (0, ROUND):
        counts = Counter(
            (one.command, one.fault, one.place) for one in islice(episodes(1), begin, begin + ROUND)
        )
        assert set(counts) == {(c, f, p) for c in COMMANDS for f, places in PLACES.items() for p in places}
        assert counts["pack", KILL, "disk"] == 3


def test_only_disks_that_a_command_writes_to_are_full() -> None:
    full = [one for one in islice(episodes(2), 20 * ROUND) if one.fault == FULL]
    assert all(one.disk in disks_of(one.command, one.place) for one in full)
    assert {one.disk for one in full if one.command == "pretrain"} == {"tmp", "out", "cache", "shm"}
    assert "out" not in {one.disk for one in full if one.place == "S3"}


def test_no_listing_is_flipped() -> None:
    flips = [one for one in islice(episodes(2), ROUND) if one.fault == "flip read"]
    assert flips
    assert all(rule["unless"] == "list-type" for one in flips for rule in rules(one))


def watched(script: str, folder: Path) -> WatchedProcess:
    return WatchedProcess([sys.executable, "-c", script], dict(os.environ), folder / "log")


def test_the_notice_of_a_wait_is_no_line_of_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # What earlier tests of this process left would count as an answer after these times.
    monkeypatch.setattr(slow_store, "_last_announced", 0.0)
    monkeypatch.setattr(slow_store, "_last_answer", 0.0)
    wait = slow_store._Wait("s3://b/x (to read)", 100.0, 160.0)
    assert NOTICE.search(slow_store.due_line([wait], 150.0, 0.0))


@pytest.mark.parametrize(
    ("script", "wrong"),
    [
        ("import sys; sys.exit('retfound: cannot, do this')", "left with 1"),
        ("import sys; print('retfound: one', file=sys.stderr); sys.exit(2)", ""),
        ("import sys; sys.exit(2)", "0 lines"),
        ("import sys; print('retfound: one\\nretfound: two', file=sys.stderr); sys.exit(2)", "2 lines"),
        (
            "import sys; print('retfound: waiting for S, ..\\nretfound: one', file=sys.stderr); sys.exit(2)",
            "",
        ),
        ("1 / 0", "Traceback"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGBUS)", "left with -7"),
        ("import sys; sys.exit(130)", ""),
    ],
)
def test_an_end_is_told_in_one_line_or_counted(script: str, wrong: str, tmp_path: Path) -> None:
    process = watched(script, tmp_path)
    assert list(process.end()) == []
    assert process.code is not None
    found = list(unreported(process.code, process.stderr, killed=False))
    assert wrong in "; ".join(found)
    assert bool(found) == bool(wrong)


WITHOUT_TRACKER = """
import os, signal
from multiprocessing import get_context, resource_tracker
lock = get_context("spawn").Lock()
os.kill(resource_tracker._resource_tracker._pid, signal.SIGKILL)
os.waitpid(resource_tracker._resource_tracker._pid, 0)
other = get_context("spawn").Lock()
del lock, other
"""


def test_what_python_says_of_its_own_killed_tracker_is_counted_only_where_nobody_killed_it(
    tmp_path: Path,
) -> None:
    process = watched(WITHOUT_TRACKER, tmp_path)
    assert list(process.end()) == []
    stderr = process.stderr
    assert "resource_tracker.py" in stderr
    assert list(unreported(0, stderr, killed=False)) != []
    assert list(unreported(0, stderr, killed=False, was_hit=True)) == []
    assert (
        list(unreported(0, stderr + "Traceback (most recent call last):\n  File 'x'\n", False, was_hit=True))
        != []
    )


SLEEPERS = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
print("ready", file=sys.stderr, flush=True)
sys.exit(child.wait() != 0)
"""


@pytest.mark.parametrize(
    ("target", "main", "child"), [(0.1, True, False), (0.6, True, True), (0.9, False, True)]
)
def test_a_kill_meets_the_main_process_or_all_or_one_of_the_others(
    target: float, main: bool, child: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.chaos_processes.OUTLIVE_S", 1.0)
    process = watched(SLEEPERS, tmp_path)
    while "ready" not in process.stderr:
        time.sleep(0.01)
    kill(process, target)
    outlived = list(process.end())
    assert process.killed == main
    assert process.code == (-9 if main else 1)
    assert any("outlive" in line for line in outlived) == (not child)


def test_what_hangs_is_ended_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.chaos_processes.LIMIT_S", 2.0)
    process = watched(SLEEPERS, tmp_path)
    assert "hangs" in "".join(process.end())
    assert process.tree() == []


def packed(folder: Path) -> Path:
    out = PackOut(url=str(folder / SET), shard_mb=0.05, workers=1)
    pack(PackConfig(source=Source(kind="phantom"), phantom=Phantom(patients=8, height=64, width=64), out=out))
    return folder


def test_a_set_with_one_other_byte_is_wrong_and_a_shard_written_again_was_lost(tmp_path: Path) -> None:
    folder, job = packed(tmp_path), JOBS["pack"]
    whole = job.result(folder)
    committed = job.committed_work(folder, whole)
    assert job.wrong_when_committed(folder, whole) == []
    assert len(committed) > 1
    assert job.lost_work(committed, job.committed_work(folder, whole), "") == []
    tar = folder / SET / next(iter(committed))
    data = tar.read_bytes()
    tar.write_bytes(data)
    assert "packed again" in job.lost_work(committed, job.committed_work(folder, whole), "")[0]
    tar.write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])
    assert tar.name in job.wrong_when_committed(folder, whole)[0]
    (folder / SET / "left.tmp").touch()
    assert "left.tmp is new" in differences(job.result(folder), whole)


def test_a_run_that_goes_on_from_an_older_checkpoint_has_lost_one() -> None:
    job = JOBS["pretrain"]
    assert job.lost_work({RUN: 6}, {}, "resuming at step 6") == []
    assert job.lost_work({RUN: 6}, {}, "nothing to do") == []
    assert "went on at step 3" in job.lost_work({RUN: 6}, {}, "resuming at step 3")[0]
    assert "went on at step 0" in job.lost_work({RUN: 6}, {}, "12 steps")[0]


def test_images_of_a_finished_part_that_are_predicted_again_are_lost(tmp_path: Path) -> None:
    job, folder = JOBS["predict"], tmp_path / f"{PREDICTED}.parts"
    assert job.committed_work(tmp_path, {}) == {}
    folder.mkdir()
    np.savez(folder / "whole.npz", probabilities=np.zeros((1, 2, 3)))
    (folder / "cut.npz").write_bytes((folder / "whole.npz").read_bytes()[:90])
    committed = job.committed_work(tmp_path, {})
    assert list(committed) == ["whole.npz"]
    assert job.lost_work(committed, {}, "80 images, 0 cannot be read, all from finished parts (A 80)") == []
    assert job.lost_work(committed, {}, "80 images, 0 cannot be read, 12 images/s (A 80)") == [
        "1 parts were finished, and their images were predicted again"
    ]
    assert job.lost_work({}, {}, "80 images, 0 cannot be read, 12 images/s (A 80)") == []


def test_results_are_alike_to_a_millionth_and_steps_done_twice_are_the_same_steps() -> None:
    whole = {"step 1": ["00ab", 1.0], "keys": ["a", "b"]}
    assert differences({**whole, "step 1, time 2": ["00ab", 1.0 + 1e-9]}, whole) == []
    assert differences({**whole, "step 1, time 2": ["00ac", 1.0]}, whole)
    assert differences({"keys": ["a", "b"]}, whole) == ["step 1 is missing"]
    assert not nearly_equal([1.0, 2.0], [1.0, 2.00001])
    assert not nearly_equal(["a"], ["a", "b"])


def test_a_file_that_cannot_be_read_is_a_result_that_differs(tmp_path: Path) -> None:
    (tmp_path / "features.npz").write_bytes(b"PK\x03\x04 cut")
    assert JOBS["embed"].wrong_when_committed(tmp_path, {"keys": []})
    assert "unreadable" in readable(JOBS["embed"].result, tmp_path)
