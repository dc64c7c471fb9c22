"""Real S3 servers on loopback: Ceph RGW (the real thing, 15 s) and rclone (at once).

Each `with` starts a server with random credentials and ends what it started.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.io import storage
from tests.cluster.real_parts import INFRA, clean_environment, need, run, wait_until


def free_ports(count: int) -> int:
    """The first of `count` neighbouring loopback ports that nobody listens on."""
    start = random.randrange(19000, 30000)  # others on this machine search too
    for first in range(start, 32000, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise RuntimeError(f"no free ports between {start} and 32000")


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


def with_new_bucket(server: S3, run: Callable[..., Any] = run) -> S3:
    """The server with a fresh bucket; `run` starts the client where the server can be reached."""
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    run(sys.executable, "-c", _MAKE_BUCKET, bucket, env=server.environment())
    return replace(server, bucket=bucket)


def deny(server: S3, action: str, key: str) -> None:
    """A bucket policy against an action on some keys (`*` allowed); this process's environment must reach it."""
    where = f"arn:aws:s3:::{server.bucket}/{key}"
    policy = {"Effect": "Deny", "Principal": "*", "Action": action, "Resource": where}
    fs, _ = storage.open_fs(server.url)
    text = json.dumps({"Version": "2012-10-17", "Statement": [policy]})
    fs.call_s3("put_bucket_policy", Bucket=server.bucket, Policy=text)


def use(server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point this process's AWS environment at a server; storage forgets earlier connections."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    storage._filesystem.cache_clear()


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
    server = new_credentials(f"http://127.0.0.1:{free_ports(1)}")
    process = start_rclone(server, folder)
    try:
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def rclone_environment(server: S3) -> dict[str, str]:
    """The environment in which rclone serves S3 to who knows the server's key and secret."""
    pair = f'"{server.key},{server.secret}"'  # a list in CSV, so its one element is quoted
    return clean_environment({"RCLONE_AUTH_KEY": pair, "RCLONE_CONFIG": os.devnull})


def start_rclone(server: S3, folder: Path) -> subprocess.Popen[bytes]:
    """rclone serving `folder` at the server's endpoint, ready; the caller ends it."""
    need("rclone")
    port = int(server.endpoint.rsplit(":", 1)[1])
    folder.mkdir(parents=True, exist_ok=True)
    env = rclone_environment(server)
    program = shutil.which("rclone", path=env["PATH"]) or "rclone"
    with (folder.parent / "rclone.log").open("ab") as log:
        process = subprocess.Popen(
            [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--vfs-cache-mode", "off", str(folder)],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    wait_until(lambda: answers(port), 20, "rclone serves S3")
    return process


def answers(port: int) -> bool:
    """Whether something listens on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
