"""Real servers on this machine for the tests: S3 (Ceph RGW, rclone) and Slurm.

Each start gives an object that knows how to reach the server, and a stop that ends only what
was started. Everything is on loopback or in network namespaces made for the test.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

INFRA = Path(__file__).parent / "infra"
ROOT = Path(__file__).parents[2]


def need(*programs: str) -> None:
    """Skip the test when a program is not installed; in CI, fail it."""
    path = clean_environment()["PATH"]
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    if missing:
        message = f"{', '.join(missing)} not installed: run .ci/install-system-packages"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def need_root() -> None:
    """Network namespaces and system daemons want root."""
    if os.geteuid() != 0:
        message = "needs root: makes network namespaces"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without its AWS and Slurm settings, the virtual environment first on PATH."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SLURM_", "SBATCH_"))}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    return env | dict(extra or {})


def run(*command: str | Path, env: Mapping[str, str] | None = None, timeout: float = 300,
        check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command from the repository's root; on failure show what it said."""
    done = subprocess.run(
        [str(part) for part in command], env=clean_environment(env), cwd=ROOT, timeout=timeout,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))}\nleft with {done.returncode}:\n{done.stdout[-4000:]}")
    return done


def free_ports(count: int) -> int:
    """The first of `count` neighbouring loopback ports that nobody listens on."""
    for first in range(19000 + os.getpid() % 1000, 32000, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise RuntimeError("no free ports between 19000 and 32000")


@dataclass(frozen=True)
class S3:
    """An S3 server and a bucket on it."""

    endpoint: str
    key: str
    secret: str = field(repr=False)
    bucket: str = ""

    @property
    def url(self) -> str:
        """The bucket's URL."""
        return f"s3://{self.bucket}"

    def environment(self) -> dict[str, str]:
        """The AWS variables a user would set, and no other AWS settings of this machine."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }


def new_credentials(endpoint: str) -> S3:
    """A random key and secret, so that a search for them in a log means something."""
    return S3(endpoint, key="AK" + secrets.token_hex(9).upper(), secret=secrets.token_hex(20))


_MAKE_BUCKET = """
import sys, botocore.session
botocore.session.get_session().create_client("s3").create_bucket(Bucket=sys.argv[1])
"""


def with_new_bucket(server: S3, *prefix: str | Path) -> S3:
    """The server with a fresh bucket; `prefix` runs the client somewhere else, such as beside the controller."""
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    run(*prefix, sys.executable, "-c", _MAKE_BUCKET, bucket, env=server.environment())
    return replace(server, bucket=bucket)


@contextmanager
def ceph(folder: Path) -> Iterator[S3]:
    """A Ceph RGW on loopback; some 15 s to start."""
    need("radosgw", "radosgw-admin", "ceph-osd", "ceph-mon")
    port = free_ports(3)
    server = new_credentials(f"http://127.0.0.1:{port}")
    try:
        run(INFRA / "ceph-rgw.sh", "up", folder, str(port), env=server.environment())
        yield server
    finally:
        run(INFRA / "ceph-rgw.sh", "down", folder, env={"SIGNAL": "KILL"}, check=False)


@contextmanager
def rclone(folder: Path) -> Iterator[S3]:
    """rclone's S3 server on loopback, keeping objects as files under `folder`; starts at once."""
    need("rclone")
    port = free_ports(1)
    server = new_credentials(f"http://127.0.0.1:{port}")
    folder.mkdir(parents=True, exist_ok=True)
    env = clean_environment({"RCLONE_AUTH_KEY": f'"{server.key},{server.secret}"', "RCLONE_CONFIG": os.devnull})
    program = shutil.which("rclone", path=env["PATH"]) or "rclone"
    with (folder.parent / "rclone.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--vfs-cache-mode", "off", str(folder)],
            env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )
    try:
        wait_until(lambda: _answers(port), 20, "rclone serves S3")
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: object, seconds: float, what: str, every: float = 0.2) -> None:
    """Poll a callable until it is true; fail with `what` after `seconds`."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"after {seconds:g} s still not: {what}")
        time.sleep(every)
