"""launch/slurm/*.sbatch on a real Slurm of two nodes.

Signals and ranks are tried with a stand-in for the trainer; the whole road with the real one, on S3.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster import real_s3
from tests.cluster.real_parts import notes, read_logs, wait_until
from tests.cluster.real_s3 import S3
from tests.cluster.real_slurm import Slurm
from tests.evaluate.commands.test_suite import CELLS, SMALL
from tests.evaluate.commands.test_suite import make_inputs as make_suite


def pretrain(slurm: Slurm, clone: Path, options: Sequence[str], *arguments: str) -> str:
    return slurm.submit(*options, "launch/slurm/pretrain.sbatch", *arguments, logs=clone / "logs", cwd=clone)


def test_two_nodes_give_one_rank_for_each_gpu(slurm: Slurm, clone: Path) -> None:
    job = pretrain(slurm, clone, ["--nodes=2", "--gpus-per-node=2"], "a.toml", "run.url=x y")
    slurm.wait(job, clone / "logs", 90)
    assert notes(clone) == {f"rank{i}": [f"start {i} of 4: pretrain a.toml run.url=x y"] for i in range(4)}
    assert {path.name for path in (clone / "logs").iterdir()} == {
        f"{job}.log",
        "pretrain-node1.log",
        "pretrain-node2.log",
    }


def test_one_node_without_gpus_is_one_rank(slurm: Slurm, clone: Path) -> None:
    job = pretrain(slurm, clone, [], "a.toml")
    slurm.wait(job, clone / "logs", 90)
    assert notes(clone) == {"rank0": ["start 0 of 1: pretrain a.toml"]}


def test_ranks_warned_of_the_time_limit_leave_and_the_job_runs_again(slurm: Slurm, clone: Path) -> None:
    job = pretrain(slurm, clone, ["--nodes=2"], "linger")
    wait_until(lambda: len(notes(clone)) == 2, 60, "both ranks have started")
    slurm.control("scancel", "--batch", "--signal=USR1", job)
    wait_until(lambda: slurm.field(job, "Restarts") == "1", 60, "the job is requeued", every=1)
    (clone / "release").touch()
    slurm.wait(job, clone / "logs", 90)
    starts = {f"rank{i}": f"start {i} of 2: pretrain linger" for i in range(2)}
    assert notes(clone) == {name: [start, "SIGUSR1", start] for name, start in starts.items()}


def test_a_failed_rank_fails_the_job_and_its_reason_is_in_the_job_log(slurm: Slurm, clone: Path) -> None:
    job = pretrain(slurm, clone, ["--nodes=2"], "fail")
    slurm.wait(job, clone / "logs", 120, state="FAILED")
    assert "retfound: a clear sentence about what is wrong" in (clone / "logs" / f"{job}.log").read_text()


def test_a_rank_that_hung_has_the_job_started_again(slurm: Slurm, clone: Path) -> None:
    job = pretrain(slurm, clone, [], "hang")
    wait_until(lambda: slurm.field(job, "Restarts") == "1", 60, "the job is requeued", every=1)
    slurm.wait(job, clone / "logs", 90)
    assert notes(clone) == {"rank0": ["start 0 of 1: pretrain hang"] * 2}
    assert "back into the queue" in (clone / "logs" / f"{job}.log").read_text()


def test_an_array_of_seeds_gives_each_a_folder_of_its_own(slurm: Slurm, clone: Path) -> None:
    slurm.submit(
        "--array=3-4",
        "launch/slurm/evaluate.sbatch",
        "e.toml",
        "checkpoint=c",
        logs=clone / "logs",
        cwd=clone,
        env={"OUT": "s3://b/o"},
    )
    wait_until(lambda: len(notes(clone).get("rank0", [])) == 2, 90, "both have started")
    assert sorted(notes(clone)["rank0"]) == [
        f"start 0 of 1: evaluate e.toml checkpoint=c seeds=[{seed}] out.url=s3://b/o/seed_{seed}"
        for seed in (3, 4)
    ]


def test_an_array_gives_each_job_its_share_of_a_suite(slurm: Slurm, clone: Path) -> None:
    command = ["launch/slurm/suite.sbatch", "s.toml", "out.url=o"]
    slurm.submit("--array=0-2", *command, logs=clone / "logs", cwd=clone)
    wait_until(lambda: len(notes(clone).get("rank0", [])) == 3, 90, "all have started")
    assert sorted(notes(clone)["rank0"]) == [
        f"start 0 of 1: suite s.toml out.url=o cells={share}/3" for share in (1, 2, 3)
    ]
    slurm.submit("--array=2", *command, logs=clone / "logs", cwd=clone, env={"SHARES": "8"})
    wait_until(lambda: len(notes(clone)["rank0"]) == 4, 90, "the job has started again")
    assert notes(clone)["rank0"][-1].endswith("cells=3/8")
    slurm.submit("--array=1-2", *command, logs=clone / "refused", cwd=clone)
    refusal = "the array must begin at 0 and leave no number out"
    wait_until(lambda: refusal in read_logs(clone / "refused"), 90, "the array is refused")
    assert len(notes(clone)["rank0"]) == 4


@pytest.mark.timeout(600)
def test_the_last_job_of_an_array_writes_the_page_of_a_suite(slurm: Slurm, tmp_path: Path) -> None:
    config, out = make_suite(tmp_path), tmp_path / "out"
    slurm.submit("--array=0-2", "launch/slurm/suite.sbatch", str(config), *SMALL, logs=tmp_path / "logs")
    wait_until((out / "suite.json").exists, 500, "the suite is complete", every=1)
    said = read_logs(tmp_path / "logs")
    # Each cell is fine-tuned once, by one job.
    for cell in ("one, none", "one, ours", "two, none", "two, ours"):
        assert len(re.findall(rf"^{cell}: (?:none|/.*/step_00000003)$", said, re.M)) == 1, said
    assert {path.parts[-3:-1] for path in out.glob("*/*/metrics.json")} == CELLS
    assert (out / "report.html").is_file()


def test_watching_out_of_time_goes_back_into_the_queue(slurm: Slurm, clone: Path) -> None:
    job = slurm.submit("launch/slurm/watch.sbatch", "w.toml", "linger", logs=clone / "logs", cwd=clone)
    wait_until(lambda: len(notes(clone)) == 1, 60, "the watcher has started")
    slurm.control("scancel", "--batch", "--signal=USR1", job)
    wait_until(lambda: slurm.field(job, "Restarts") == "1", 60, "the job is requeued", every=1)
    (clone / "release").touch()
    slurm.wait(job, clone / "logs", 90)
    assert notes(clone)["rank0"].count("start 0 of 1: watch w.toml linger") == 2


def test_a_job_without_a_config_says_how_to_call_it(slurm: Slurm, clone: Path) -> None:
    job = pretrain(slurm, clone, [])
    slurm.wait(job, clone / "logs", 60, state="FAILED")
    assert "usage: sbatch" in (clone / "logs" / f"{job}.log").read_text()


@pytest.mark.timeout(1500)
def test_pack_pretrain_preempted_on_two_nodes_and_evaluate_on_s3(
    slurm: Slurm, slurm_ceph: S3, tmp_path: Path
) -> None:
    s3 = real_s3.with_new_bucket(slurm_ceph, slurm.control)
    aws, logs = s3.environment(), tmp_path / "logs"
    shards, run, result = f"{s3.url}/shards", f"{s3.url}/run", f"{s3.url}/evaluation"

    slurm.control(
        "retfound",
        "pack",
        "configs/demo/pack.toml",
        "phantom.patients=30",
        "phantom.slices=4",
        f"out.url={shards}",
        env=aws,
    )
    slurm.control("retfound", "verify", shards, env=aws)
    training = slurm.submit(
        "--nodes=2",
        "launch/slurm/pretrain.sbatch",
        "configs/demo/pretrain.toml",
        f"run.url={run}",
        f"data.shards={shards}",
        "train.steps=60",
        "train.log_every=1",
        "train.global_batch=8",
        "train.micro_batch=4",
        "train.threads=1",
        "checkpoint.every_steps=20",
        logs=logs,
        env=aws,
    )
    checkpoint = f"{run}/checkpoints/step_00000060"
    evaluation = slurm.submit(
        f"--dependency=afterok:{training}",
        "launch/slurm/evaluate.sbatch",
        "configs/demo/evaluate.toml",
        f"checkpoint={checkpoint}",
        f"data.path={shards}",
        f"out.url={result}",
        "finetune.epochs=1",
        "finetune.warmup_epochs=0",
        "bootstrap=20",
        logs=logs,
        env=aws,
    )
    watching = slurm.submit(
        f"--dependency=afterok:{training}",
        "launch/slurm/watch.sbatch",
        "configs/watch_octid.toml",
        f"run.url={run}",
        f"data.path={shards}",
        "finetune.epochs=1",
        "finetune.warmup_epochs=0",
        "bootstrap=20",
        "seeds=[0]",
        "alarm.least=1",
        logs=logs,
        env=aws,  # of 20 images nothing can be said
    )
    early = f"{run}/checkpoints/step_00000020/COMMIT.json"
    wait_until(lambda: exists(slurm, aws, early), 300, "a commit", every=1)
    slurm.control("scancel", "--batch", "--signal=USR1", training)
    wait_until(lambda: slurm.field(training, "Restarts") == "1", 120, "the job is requeued", every=1)
    slurm.wait(training, logs, 600)
    slurm.wait(evaluation, logs, 600)
    slurm.wait(watching, logs, 600)

    assert read_json(slurm, aws, f"{checkpoint}/COMMIT.json")["step"] == 60
    rows = [json.loads(line) for line in read_text(slurm, aws, f"{run}/metrics.jsonl").splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 61))  # none was done twice
    assert "macro" in read_json(slurm, aws, f"{run}/evaluations/step_00000060/metrics.json")
    assert {row["world_size"] for row in rows} == {2}
    assert {"legacy", "macro"} <= read_json(slurm, aws, f"{result}/metrics.json").keys()
    assert s3.key not in read_logs(logs)
    assert s3.secret not in read_logs(logs)


_EXISTS = "import sys; from retfound_dist.io import storage; print(storage.exists(sys.argv[1]))"
_READ = "import sys; from retfound_dist.io import storage; print(storage.read_bytes(sys.argv[1]).decode())"


def exists(slurm: Slurm, aws: dict[str, str], url: str) -> bool:
    return slurm.control(sys.executable, "-c", _EXISTS, url, env=aws) == "True"


def read_text(slurm: Slurm, aws: dict[str, str], url: str) -> str:
    return slurm.control(sys.executable, "-c", _READ, url, env=aws)


def read_json(slurm: Slurm, aws: dict[str, str], url: str) -> dict[str, object]:
    value: dict[str, object] = json.loads(read_text(slurm, aws, url))
    return value
