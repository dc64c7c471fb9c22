"""A run that meets trouble: what it does, what it says, what it leaves."""

import json
import math
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from retfound_dist.formats import checkpoint_folder, run_folder
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.io import storage
from retfound_dist.train.ranks.watchdog import HUNG, RESTART_AFTER_STOP_VARIABLE, RESTART_FILE_VARIABLE
from tests.stream.stream_inputs import make_set
from tests.train.launching import metrics, pretrain, start

pytestmark = pytest.mark.slow
FP32 = "train.precision=fp32"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_set(tmp_path_factory.mktemp("set"))


def test_steps_that_are_not_finite_are_skipped_counted_and_named_until_the_budget_is_spent(
    manifest: Manifest, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    wild = [FP32, "train.steps=60", "optim.base_lr=1e30", "train.bad_step_budget=3", "train.log_every=2"]
    done = pretrain(2, run, manifest.url, *wild)
    assert done.returncode != 0
    assert "bad_step_budget=3" in done.stderr
    assert not re.search(r'File ".*retfound_dist/', done.stderr)  # no traceback of ours
    found = run_folder.read_rows(str(run), run_folder.ANOMALIES)
    assert [row["kind"] for row in found] == ["skipped"] * len(found)
    assert len(found) > 3
    assert all(len(row["keys"]) == 10 for row in found)
    assert set(found[0]["suspects"]) <= set(found[0]["keys"])
    assert found[0]["suspects"]
    rows = metrics(run)
    assert rows[0]["skipped_steps"] == 0
    assert rows[-1]["skipped_steps"] == len(found)
    assert rows[-1]["loss"] is None


def test_a_state_converted_once_stands_beside_its_checkpoint(manifest: Manifest, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = [FP32, "train.steps=9", "checkpoint.every_steps=100"]
    assert pretrain(2, run, manifest.url, *settings, "train.stop_at_step=3").returncode == 0
    checkpoint = run / "checkpoints/step_00000003"
    for ranks, extra in ((1, "train.offload_optimizer=true"), (3, "train.zero_stage=3")):
        # each goes on from step 3: what the one before has added is taken away
        storage.delete(checkpoint_folder.checkpoint_url(str(run), 5))
        again = pretrain(ranks, run, manifest.url, *settings, "train.stop_at_step=5", extra)
        assert again.returncode == 0, again.stderr
        assert "resuming at step 3 (written by 2 ranks" in again.stderr
        [cached] = checkpoint.glob("universal-*")
        done = checkpoint_folder.read_commit(str(cached))
        if ranks == 1:
            first = done
        assert done == first
    rows = [row for row in metrics(run) if row["step"] in (4, 5)]
    assert [row["world_size"] for row in rows] == [1, 1, 3, 3]
    assert [row["loss"] for row in rows[:2]] == pytest.approx([row["loss"] for row in rows[2:]], rel=1e-4)


def test_a_converted_state_that_is_damaged_is_made_anew(manifest: Manifest, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = [FP32, "train.steps=9", "checkpoint.every_steps=100"]
    assert pretrain(2, run, manifest.url, *settings, "train.stop_at_step=3").returncode == 0
    for stop in (4, 5):
        again = pretrain(1, run, manifest.url, *settings, f"train.stop_at_step={stop}")
        assert again.returncode == 0, again.stderr
        assert "resuming at step 3" in again.stderr
        assert ("the state is converted again" in again.stderr) == (stop == 5)
        storage.delete(checkpoint_folder.checkpoint_url(str(run), stop))
        [cached] = (run / "checkpoints/step_00000003").glob("universal-*")
        part = next(cached.rglob("exp_avg.pt"))
        part.write_bytes(part.read_bytes()[:-7] + b"damaged")


def test_another_start_is_wanted_where_a_rank_was_killed_and_not_where_the_run_ended_or_said_why(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, run = tmp_path / "start_again", tmp_path / "run"
    monkeypatch.setenv(RESTART_FILE_VARIABLE, str(again))
    agent = start(2, run, manifest.url, FP32, "train.steps=100000")
    wait_for(lambda: len(metrics(run)) > 2)
    ranks = [p for p in psutil.Process(agent.pid).children() if "pretrain" in p.cmdline()]
    ranks[1].kill()
    agent.communicate(timeout=120)
    assert agent.returncode != 0
    assert again.exists()
    step = checkpoint_folder.list_steps(str(run))[-1:] or [0]
    done = pretrain(2, run, manifest.url, FP32, "train.steps=100000", f"train.stop_at_step={step[0] + 3}")
    assert done.returncode == 0, done.stderr
    assert not again.exists()
    wild = [FP32, "train.steps=60", "optim.base_lr=1e30", "train.bad_step_budget=1"]
    assert pretrain(1, tmp_path / "wild", manifest.url, *wild).returncode == 2
    assert not again.exists()


def test_on_kubernetes_another_start_is_wanted_after_a_stop_and_not_of_a_run_that_has_ended(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, run = tmp_path / "start_again", tmp_path / "run"
    monkeypatch.setenv(RESTART_FILE_VARIABLE, str(again))
    monkeypatch.setenv(RESTART_AFTER_STOP_VARIABLE, "1")
    again.touch()
    settings = [FP32, "train.steps=100000"]
    stopped = start(1, run, manifest.url, *settings)
    wait_for(lambda: len(metrics(run)) > 2)
    stopped.send_signal(signal.SIGTERM)
    stopped.communicate(timeout=120)
    assert stopped.returncode == 0
    assert again.exists()
    for said in ("finished at step 4", "has reached its last step, 4: nothing to do"):
        again.touch()
        done = pretrain(1, tmp_path / "short", manifest.url, FP32, "train.steps=4")
        assert done.returncode == 0
        assert said in done.stderr
        assert not again.exists()


def test_a_second_run_on_the_same_url_is_refused_and_the_first_goes_on(
    manifest: Manifest, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first = start(1, run, manifest.url, FP32, "train.steps=100000")
    try:
        wait_for(lambda: len(metrics(run)) > 2)
        second = pretrain(1, run, manifest.url, FP32, "train.steps=100000")
        assert second.returncode == 2
        assert f"is being run by process {first.pid}" in second.stderr
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGTERM)
        said = first.communicate(timeout=120)[1]
    assert first.returncode == 0, said
    assert "stopped as asked at step" in said
    assert not (run / "LOCK.json").exists()
    assert checkpoint_folder.list_steps(str(run))[-1] == metrics(run)[-1]["step"]


def test_when_a_rank_hangs_the_others_show_their_stacks_and_all_leave_with_an_error(
    manifest: Manifest, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    endless = [FP32, "train.steps=100000", "train.hang_minutes=0.1"]
    agent = start(2, run, manifest.url, *endless)
    wait_for(lambda: len(metrics(run)) > 2)
    ranks = [p for p in psutil.Process(agent.pid).children() if "pretrain" in p.cmdline()]
    assert len(ranks) == 2
    ranks[1].send_signal(signal.SIGSTOP)
    ranks[0].wait(60)
    ranks[1].send_signal(signal.SIGCONT)  # so that torchrun need not wait half a minute for it
    said = agent.communicate(timeout=120)[1]
    assert agent.returncode != 0
    assert f"exitcode  : {HUNG}" in said
    assert "no step for" in said
    assert 'File "' in said
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in ranks)


def test_a_disk_that_is_full_is_tried_again_then_the_last_good_checkpoint_is_named(
    manifest: Manifest, small_disk: Path
) -> None:
    run = small_disk / "run"
    done = pretrain(
        1, run, manifest.url, FP32, "train.steps=40", "checkpoint.every_steps=3", "checkpoint.patience_s=2"
    )
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    good = checkpoint_folder.list_steps(str(run))
    assert f"the checkpoint of step {good[-1] + 3} could not be saved" in last
    assert f"the last good one is of step {good[-1]}:" in last
    assert "No space left" in last
    assert "tried for 2 s" in last


def test_a_full_scratch_disk_ends_a_start_by_name_and_passes_over_no_checkpoint(
    manifest: Manifest, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, settings = tmp_path / "run", [FP32, "train.steps=6", "checkpoint.every_steps=2"]
    assert pretrain(1, run, manifest.url, *settings, "train.stop_at_step=4").returncode == 0
    monkeypatch.setenv("TMPDIR", str(small_disk))
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - (5 << 20)))
    done = pretrain(1, run, manifest.url, *settings)
    assert done.returncode == 2
    assert "skipping" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("retfound: the checkpoint cannot be loaded")
    assert f"the disk at {small_disk}" in last
    assert "is full" in last
    assert checkpoint_folder.list_steps(str(run)) == [2, 4]
    filler.unlink()
    again = pretrain(1, run, manifest.url, *settings)
    assert again.returncode == 0, again.stderr
    assert "resuming at step 4" in again.stderr


def test_damaged_checkpoints_of_a_run_end_its_start_until_somebody_says_how_to_go_on(
    manifest: Manifest, tmp_path: Path
) -> None:
    run, settings = tmp_path / "run", [FP32, "train.steps=4", "checkpoint.every_steps=2"]
    assert pretrain(1, run, manifest.url, *settings).returncode == 0
    folder = run / "checkpoints"
    (folder / "step_00000004/COMMIT.json").write_text("[]")
    again = pretrain(1, run, manifest.url, *settings)
    assert again.returncode == 0, again.stderr
    assert "skipping the checkpoint of step 4" in again.stderr
    assert "resuming at step 2" in again.stderr
    assert checkpoint_folder.read_commit(str(folder / "step_00000004")).generation == 1
    for commit_file in folder.glob("*/COMMIT.json"):
        commit_file.write_text("{")
    done = pretrain(1, run, manifest.url, *settings)
    assert done.returncode == 2
    assert "none can be used (step 4: " in done.stderr
    assert "run.resume=none" in done.stderr.strip().splitlines()[-1]
    done = pretrain(1, run, manifest.url, *settings, "run.resume=none")
    assert done.returncode == 0, done.stderr
    assert checkpoint_folder.read_commit(str(folder / "step_00000002")).state
    done = pretrain(1, run, manifest.url, *settings, "run.resume=2")
    assert done.returncode == 0, done.stderr
    assert "resuming at step 2" in done.stderr


def test_tensorboard_and_profiler_leave_their_files_and_the_micro_batch_is_found(
    manifest: Manifest, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    extra = ["train.tensorboard=true", "train.profile_steps=[2,3]", 'train.micro_batch="auto"']
    done = pretrain(1, run, manifest.url, FP32, "train.steps=5", *extra)
    assert done.returncode == 0, done.stderr
    assert "10 = 1 rank x 1 pass x 10" in done.stderr
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    losses = [(e.step, e.value) for e in board.Scalars("train/loss")]
    assert losses == [(row["step"], pytest.approx(row["loss"])) for row in metrics(run)]
    assert {p.name for p in (run / "profiles").iterdir()} == {
        "steps_00000002-00000003_rank_0.json.gz",
        "steps_00000002-00000003_rank_0.txt",
    }
    assert "aten::" in (run / "profiles" / "steps_00000002-00000003_rank_0.txt").read_text()


def test_the_log_tells_the_starts_the_checkpoints_and_the_end(manifest: Manifest, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for stop in (4, 0):
        done = pretrain(
            1,
            run,
            manifest.url,
            FP32,
            "train.steps=6",
            "checkpoint.every_steps=2",
            f"train.stop_at_step={stop}",
        )
        assert done.returncode == 0, done.stderr
    events = run_folder.read_rows(str(run), run_folder.EVENTS)
    assert [(e["event"], e["step"]) for e in events] == [
        ("start", 0), ("checkpoint", 2), ("checkpoint", 4), ("end", 4),
        ("start", 4), ("checkpoint", 6), ("end", 6),
    ]  # fmt: skip
    starts = [e for e in events if e["event"] == "start"]
    assert all(e["began"] < e["ready"] <= e["time"] for e in starts)
    assert starts[0]["began"] < starts[1]["began"]
    rows = metrics(run)
    assert 0 < rows[-1]["goodput"] < 1
    wall = rows[-1]["time"] - starts[0]["began"]
    assert rows[-1]["goodput"] == pytest.approx(math.fsum(r["step_s"] for r in rows) / wall, rel=0.02)
    assert json.loads((run / "config.json").read_text())["checkpoint"]["every_steps"] == 2


def wait_for(condition: "object", seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():  # type: ignore[operator]
                return
        except (OSError, subprocess.SubprocessError):
            pass
        assert time.monotonic() < end
        time.sleep(0.2)
