"""A real Slurm of two nodes on this machine, each node with its own network and name."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.real_parts import (
    INFRA,
    ROOT,
    clean_environment,
    need,
    need_root,
    read_logs,
    run,
    wait_until,
)
from tests.cluster.real_s3 import S3, new_credentials

UNFINISHED = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED"}


@dataclass(frozen=True)
class Slurm:
    """A Slurm cluster of two nodes (8 CPUs, 2 pretended GPUs each), each with its own network and name."""

    folder: Path

    def control(
        self,
        *command: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        timeout: float = 300,
        check: bool = True,
    ) -> str:
        """Run a command beside the controller; gives what it printed."""
        return run(
            INFRA / "slurm.sh",
            "ctl",
            self.folder,
            *command,
            env=self.environment(env),
            cwd=cwd,
            timeout=timeout,
            check=check,
        ).stdout.strip()

    def node(
        self, index: int, *command: str | Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT
    ) -> subprocess.Popen[str]:
        """Start a command on a node (1 or 2), outside any job."""
        return subprocess.Popen(
            [str(INFRA / "slurm.sh"), "node", str(self.folder), str(index), *map(str, command)],
            env=clean_environment(self.environment(env)),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """What jobs need to find the cluster and this virtual environment."""
        venv = str(Path(sys.executable).parents[1])
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "VENV": venv} | dict(extra or {})

    def submit(
        self, *arguments: str | Path, logs: Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT
    ) -> str:
        """Submit a batch script; its log is `logs`/JOB.log. Gives the job's number."""
        logs.mkdir(parents=True, exist_ok=True)
        return self.control(
            "sbatch",
            "--parsable",
            f"--output={logs}/%j.log",
            *arguments,
            env={"LOGS": str(logs)} | dict(env or {}),
            cwd=cwd,
        )

    def field(self, job: str, name: str) -> str:
        """A field of `scontrol show job`, such as JobState or Restarts."""
        shown = self.control("scontrol", "--oneliner", "show", "job", job)
        return dict(part.split("=", 1) for part in shown.split() if "=" in part)[name]

    def wait(self, job: str, logs: Path, seconds: float, state: str = "COMPLETED") -> None:
        """Wait for a job to end in `state`; on any other end fail with all its logs."""

        def ended() -> bool:
            return self.field(job, "JobState") not in UNFINISHED

        try:
            wait_until(ended, seconds, f"job {job} ends", every=1)
        finally:
            found = self.field(job, "JobState")
            if found != state:
                pytest.fail(f"job {job} is {found}, not {state}\n{read_logs(logs)[-8000:]}")

    def lose(self, index: int) -> None:
        """A node (1 or 2) without power: every process in its network is gone."""
        run(INFRA / "slurm.sh", "kill", self.folder, str(index))

    def bring_back(self, index: int) -> None:
        """The node's daemon again; jobs may be placed there as soon as it has answered."""
        run(INFRA / "slurm.sh", "node", self.folder, str(index), "slurmd", "-b", env=self.environment())

    def ceph(self) -> S3:
        """A Ceph RGW in the cluster's own network; it ends with the cluster."""
        need("radosgw", "radosgw-admin", "ceph-osd", "ceph-mon")
        server = new_credentials("http://10.99.0.254:19000")
        self.control(
            INFRA / "ceph-rgw.sh",
            "up",
            self.folder / "ceph",
            "19000",
            env=server.environment() | {"BIND": "10.99.0.254"},
        )
        return server


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """A real Slurm of two nodes; ready in some 2 s."""
    need("slurmctld", "slurmd", "sbatch", "munged", "ip", "nsenter", "unshare")
    need_root()
    try:
        name = "rf" + secrets.token_hex(3)
        run(INFRA / "slurm.sh", "up", folder, env={"NAME": name, "NODES": "2", "GPUS": "2"})
        yield Slurm(folder)
    finally:
        run(INFRA / "slurm.sh", "down", folder, check=False)
