"""A job on a real Slurm whose bucket is gone for longer than it is waited for."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from retfound_dist.formats import checkpoint_folder, run_folder
from tests.cluster.real_parts import INFRA, need, read_logs, wait_until
from tests.cluster.real_s3 import S3, new_credentials, rclone_environment, with_new_bucket
from tests.cluster.real_slurm import Slurm
from tests.stream.stream_inputs import make_set
from tests.train.launching import SMALL

ADDRESS = "10.99.0.254:19100"
SETTINGS = [
    "configs/demo/pretrain.toml", *SMALL, "train.precision=fp32", "train.steps=100000",
    "checkpoint.every_steps=20", "checkpoint.patience_s=3",
]  # fmt: skip


@contextmanager
def served(slurm: Slurm, server: S3, data: Path) -> Iterator[None]:
    """rclone's S3 server where the nodes reach it; gone at the end, its buckets are the folders of `data`."""
    need("rclone")
    env = rclone_environment(server)
    program = shutil.which("rclone", path=env["PATH"]) or "rclone"
    serve = [program, "serve", "s3", "--addr", ADDRESS, "--vfs-cache-mode", "off", str(data)]
    process = subprocess.Popen(
        [str(INFRA / "slurm.sh"), "ctl", str(slurm.folder), *serve],
        env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        probe = f"exec 3<>/dev/tcp/{ADDRESS.replace(':', '/')} && echo answers"
        answers = ["bash", "-c", probe]
        wait_until(lambda: "answers" in slurm.control(*answers, check=False), 20, "rclone serves S3")
        yield
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.timeout(300)
def test_a_job_whose_bucket_is_gone_is_queued_again_and_goes_on_at_the_last_good_checkpoint(
    slurm: Slurm, tmp_path: Path
) -> None:
    data, logs, shards = tmp_path / "data", tmp_path / "logs", make_set(tmp_path).url
    data.mkdir()
    server = new_credentials(f"http://{ADDRESS}")
    with served(slurm, server, data):
        s3 = with_new_bucket(server, slurm.control)
        run = str(data / s3.bucket / "run")  # as this process sees it
        where = [f"run.url={s3.url}/run", f"data.shards={shards}"]
        job = slurm.submit("launch/slurm/pretrain.sbatch", *SETTINGS, *where, logs=logs, env=s3.environment())
        await_that(logs, lambda: len(checkpoint_folder.list_steps(run)) > 0, 90, "a commit")
    last = checkpoint_folder.list_steps(run)[-1]

    def restarts() -> int:
        return int(slurm.field(job, "Restarts"))

    await_that(logs, lambda: restarts() == 1, 90, "the job is queued again")
    assert checkpoint_folder.list_steps(run)[-1] == last
    with served(slurm, server, data):
        await_that(logs, lambda: checkpoint_folder.list_steps(run)[-1] > last, 90, "it saves again")
        slurm.control("scancel", "--signal=TERM", job)  # as long as it needs, and no other start
        slurm.wait(job, logs, 60)
    said = read_logs(logs)
    assert re.findall(r"resuming at step (\d+)", said) == [str(last)]
    assert said.count("back into the queue") == restarts() == 1
    rows = [row["step"] for row in run_folder.read_metrics(run)]
    assert rows == list(range(1, checkpoint_folder.list_steps(run)[-1] + 1))
    assert s3.secret not in said


def await_that(logs: Path, condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Or fail with what all had to say."""
    try:
        wait_until(condition, seconds, what)
    except BaseException:
        print(read_logs(logs)[-6000:])
        raise
