"""The run as a user starts it: one process or several, stopped, resumed, refused."""

import json
from pathlib import Path

import pytest

from retfound_dist.config.schema import Data, Optim, PretrainConfig, Run, Train
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.shard_set import Manifest, read_index
from retfound_dist.train.schedule import make_schedule
from tests import ROOT
from tests.stream.stream_inputs import make_set
from tests.train.launching import metrics, pretrain

FIELDS = {
    "step", "epoch", "samples", "loss", "lr", "grad_norm", "images_per_s", "data_wait_s", "step_s", "mfu",
    "world_size", "batch_digest", "bad_samples", "fetched_bytes", "storage_retries", "loss_mean", "memory_gb",
    "rank_s", "slowest_rank", "skipped_steps", "spikes", "time", "goodput",
}  # fmt: skip


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_set(tmp_path_factory.mktemp("set"))


def config(manifest: Manifest, train: Train, optim: Optim | None = None) -> PretrainConfig:
    return PretrainConfig(
        run=Run(url="unused"), data=Data(shards=manifest.url), train=train, optim=optim or Optim()
    )


def test_epochs_become_steps_and_the_rate_follows_samples_seen(manifest: Manifest) -> None:
    schedule = make_schedule(
        config(manifest, Train(global_batch=10, epochs=6), Optim(warmup_epochs=2, base_lr=0.256)),
        manifest,
        1,
        64,
    )
    assert manifest.samples == 50
    assert schedule.steps == 30
    assert [schedule.lr(s) for s in (0, 5, 10)] == pytest.approx([0.0, 0.005, 0.01])
    assert schedule.lr(20) == pytest.approx(0.005)
    assert schedule.lr(30) == pytest.approx(0.0)


def test_stopping_early_does_not_change_the_schedule(manifest: Manifest) -> None:
    whole = make_schedule(config(manifest, Train(global_batch=10, epochs=6)), manifest, 1, 64)
    cut = make_schedule(config(manifest, Train(global_batch=10, epochs=6, stop_at_step=4)), manifest, 1, 64)
    assert (cut.last_step, whole.last_step) == (4, 30)
    assert [cut.lr(s) for s in range(4)] == [whole.lr(s) for s in range(4)]


@pytest.mark.slow
def test_a_run_stopped_and_resumed_on_other_ranks_and_stage_is_the_same_run(
    manifest: Manifest, tmp_path: Path
) -> None:
    fp32 = ["train.precision=fp32", "train.steps=8", "checkpoint.every_steps=2"]
    whole = pretrain(1, tmp_path / "whole", manifest.url, *fp32)
    assert whole.returncode == 0, whole.stderr
    for ranks, stage, stop in ((2, 2, 2), (1, 3, 4), (2, 1, 6), (3, 0, 0)):
        again = pretrain(
            ranks,
            tmp_path / "cut",
            manifest.url,
            *fp32,
            f"train.zero_stage={stage}",
            f"train.stop_at_step={stop}",
        )
        assert again.returncode == 0, again.stderr
    assert "ZeRO 1 (0 runs as 1), fp32" in again.stderr
    a, b = metrics(tmp_path / "whole"), metrics(tmp_path / "cut")
    assert [r["batch_digest"] for r in a] == [r["batch_digest"] for r in b]
    assert len({r["batch_digest"] for r in a}) == 8
    assert [r["loss"] for r in a] == pytest.approx([r["loss"] for r in b], rel=1e-5)
    assert [r["grad_norm"] for r in a] == pytest.approx([r["grad_norm"] for r in b], rel=1e-3)
    assert [r["world_size"] for r in b] == [2, 2, 1, 1, 2, 2, 3, 3]
    done = pretrain(1, tmp_path / "cut", manifest.url, *fp32)
    assert done.returncode == 0
    assert "last step" in done.stderr
    assert len(metrics(tmp_path / "cut")) == 8


@pytest.mark.slow
def test_bf16_on_two_ranks_trains_commits_and_names_every_field(manifest: Manifest, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = pretrain(2, run, manifest.url, "train.steps=3", "checkpoint.every_steps=2")
    assert done.returncode == 0, done.stderr
    rows = metrics(run)
    assert [r["step"] for r in rows] == [1, 2, 3]
    assert set(rows[0]) >= FIELDS
    assert checkpoint_folder.list_steps(str(run)) == [2, 3]
    commit = checkpoint_folder.read_commit(checkpoint_folder.checkpoint_url(str(run), 3))
    assert (commit.world_size, commit.samples, commit.batch_digest) == (2, 30, rows[-1]["batch_digest"])
    assert checkpoint_folder.WEIGHTS in commit.files
    assert json.loads((run / "config.json").read_text())["train"]["global_batch"] == 10
    again = pretrain(1, tmp_path / "again", manifest.url, "train.steps=3")
    assert again.returncode == 0, again.stderr
    assert [r["batch_digest"] for r in metrics(tmp_path / "again")] == [r["batch_digest"] for r in rows]
    assert [r["loss"] for r in metrics(tmp_path / "again")] == pytest.approx(
        [r["loss"] for r in rows], rel=0.02
    )


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_by_name_and_another_config_is_refused(
    manifest: Manifest, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    common = ["train.steps=4", "checkpoint.every_steps=1", "train.precision=fp32"]
    assert pretrain(1, run, manifest.url, *common, "train.stop_at_step=2").returncode == 0
    state = next((run / "checkpoints/step_00000002").glob("state*/*optim_states.pt"))
    state.write_bytes(state.read_bytes()[:-7] + b"damaged")
    again = pretrain(1, run, manifest.url, *common, "train.stop_at_step=3")
    assert again.returncode == 0, again.stderr
    assert "skipping the checkpoint of step 2" in again.stderr
    assert "resuming at step 1" in again.stderr
    before = (run / "config.json").read_bytes()
    other = pretrain(1, run, manifest.url, *common, "optim.base_lr=1e-3")
    assert other.returncode == 2
    assert "optim.base_lr was 0.004 and is now 0.001" in other.stderr
    assert "run.url" in other.stderr
    assert (run / "config.json").read_bytes() == before


@pytest.mark.slow
def test_the_vit_large_preset_takes_real_steps(manifest: Manifest, tmp_path: Path) -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "retfound_dist", "pretrain", "configs/pretrain_vitl_oct.toml", "train.global_batch=8", "train.steps=2", f"data.shards={manifest.url}", f"run.url={tmp_path / 'run'}"],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=550,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = metrics(tmp_path / "run")
    assert rows[-1]["step"] == 2
    assert 0.5 < rows[-1]["loss"] < 3


@pytest.mark.slow
def test_bad_samples_are_named_counted_over_all_ranks_and_capped(tmp_path: Path) -> None:
    manifest = make_set(tmp_path)
    names = []
    for shard, place in ((0, 1), (2, 0), (3, 2)):
        entry = read_index(manifest.url, manifest.shards[shard])[place]
        path = Path(manifest.url) / manifest.shards[shard].name
        data = bytearray(path.read_bytes())
        data[entry.image_offset + 60] ^= 1
        path.write_bytes(data)
        names.append(f"{path.name}/{entry.key}")
    ran = pretrain(2, tmp_path / "run", manifest.url, "train.steps=10")  # two epochs: each is met twice
    assert ran.returncode == 0, ran.stderr
    assert metrics(tmp_path / "run")[-1]["bad_samples"] == 3
    for name in names:
        assert ran.stderr.count(name) == 1
    ran = pretrain(2, tmp_path / "few", manifest.url, "train.steps=10", "data.bad_sample_budget=2")
    assert ran.returncode != 0
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("retfound:")]
    assert "data.bad_sample_budget=2" in line
    assert any(name in line for name in names)
