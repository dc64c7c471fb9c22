"""The real trainer, loaders included, on a real Slurm of two nodes: cancelled, pre-empted, out of time, a node lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.formats import checkpoint_folder, run_folder
from tests.cluster.real_parts import read_logs, wait_until
from tests.cluster.real_slurm import Slurm
from tests.stream.stream_inputs import make_set
from tests.train.launching import SMALL

ENDLESS = [
    "configs/demo/pretrain.toml", *SMALL, "data.workers=2", "train.precision=fp32", "train.steps=100000",
    "checkpoint.every_steps=50000",
]  # fmt: skip


class Job:
    """A run on both nodes that ends only when it is asked to."""

    def __init__(self, slurm: Slurm, folder: Path) -> None:
        self.slurm, self.logs, self.run = slurm, folder / "logs", folder / "run"
        shards = make_set(folder, count=40).url
        where = [f"run.url={self.run}", f"data.shards={shards}"]
        self.id = slurm.submit("--nodes=2", "launch/slurm/pretrain.sbatch", *ENDLESS, *where, logs=self.logs)

    def await_that(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Or fail with what all had to say."""
        try:
            wait_until(condition, seconds, what)
        except BaseException:
            print(read_logs(self.logs)[-6000:])
            self.slurm.control("scancel", "--signal=KILL", self.id, check=False)
            raise

    def rows(self) -> list[dict[str, Any]]:
        return run_folder.read_rows(str(self.run), run_folder.METRICS)

    def step(self) -> int:
        """The last one it did; 0: none."""
        return ([0] + [row["step"] for row in self.rows()])[-1]

    def trains_past(self, step: int) -> int:
        """Wait until it has done more steps; gives how many it has then done."""
        self.await_that(lambda: self.step() > step + 1, 120, f"job {self.id} trains past step {step}")
        return self.step()

    def restarts(self) -> int:
        return int(self.slurm.field(self.id, "Restarts"))

    def saved(self) -> int:
        """The step of the newest checkpoint; 0: none."""
        return (checkpoint_folder.list_steps(str(self.run)) or [0])[-1]

    def saves_and_starts_again(self, restarts: int) -> int:
        """Wait for it; gives the step that it saved at, which is the last one it did."""
        self.await_that(lambda: self.restarts() == restarts, 90, f"job {self.id} is requeued")
        saved, log = self.saved(), (self.logs / f"{self.id}.log").read_text()
        assert saved == self.step(), read_logs(self.logs)
        assert log.count("back into the queue") == restarts
        return saved


@pytest.fixture
def job(slurm: Slurm, tmp_path: Path) -> Job:
    return Job(slurm, tmp_path)


def test_a_cancelled_job_is_saved_and_does_not_start_again(slurm: Slurm, job: Job) -> None:
    job.trains_past(0)
    slurm.control("scancel", job.id)
    slurm.wait(job.id, job.logs, 45, state="CANCELLED")
    assert job.saved() == job.step() > 0, read_logs(job.logs)
    assert job.restarts() == 0
    log = (job.logs / f"{job.id}.log").read_text()
    assert "cancelled: not requeued" in log
    assert "back into the queue" not in log
    assert "stopped as asked at step" in read_logs(job.logs)
    assert "scancel (Slurm's KillWait): 30 s" in read_logs(job.logs)  # as it said at its start


@pytest.mark.timeout(600)
def test_preempted_out_of_time_and_without_a_node_a_job_goes_on_where_it_was(slurm: Slurm, job: Job) -> None:
    job.trains_past(0)
    urgent = ["--partition=urgent", "--nodes=2", "--output=/dev/null", "--wrap=sleep 1"]
    slurm.control("sbatch", "--parsable", *urgent)
    first = job.saves_and_starts_again(1)

    job.trains_past(first)
    slurm.control("scontrol", "update", f"job={job.id}", "TimeLimit=1")  # warned at once: 300 s before
    second = job.saves_and_starts_again(2)
    slurm.control("scontrol", "update", f"job={job.id}", "TimeLimit=UNLIMITED")

    last = job.trains_past(second)
    assert [row["step"] for row in job.rows()] == list(range(1, len(job.rows()) + 1))  # none was done twice
    slurm.lose(2)
    job.await_that(lambda: job.restarts() == 3, 60, "the job is requeued without its node")
    slurm.bring_back(2)
    again = len(job.rows())
    job.await_that(lambda: len(job.rows()) > again, 90, "it trains again")
    assert job.rows()[again]["step"] == second + 1 <= last  # from the last checkpoint
    slurm.control("scancel", "--signal=TERM", job.id)  # as long as it needs, and no other start
    slurm.wait(job.id, job.logs, 60)
    assert job.saved() == job.step()
