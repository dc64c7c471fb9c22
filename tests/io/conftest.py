"""An S3 server in this process, for tests of what is asked of S3."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer

from retfound_dist.io import storage


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """The server's address."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a fresh bucket, reached by the usual AWS environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    storage._filesystem.cache_clear()
    bucket_name = f"io-{uuid.uuid4().hex[:8]}"
    storage.open_fs(f"s3://{bucket_name}")[0].mkdir(bucket_name)
    yield bucket_name
    storage._filesystem.cache_clear()
