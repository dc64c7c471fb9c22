"""Fixtures of the tests on real parts. In CI (`CI=true`) a missing system package fails a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import real_parts
from real_parts import S3

from retfound_dist import storage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder is a cluster test, and slow."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def ceph_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """One Ceph RGW for all tests that ask for it."""
    with real_parts.ceph(tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """One rclone S3 server for all tests that ask for it."""
    with real_parts.rclone(tmp_path_factory.mktemp("rclone") / "data") as server:
        yield server


@pytest.fixture(params=["ceph", "rclone"])
def s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A fresh bucket on each server, this process's environment set to reach it."""
    server = real_parts.with_new_bucket(request.getfixturevalue(f"{request.param}_server"))
    use(server, monkeypatch)
    yield server
    storage._filesystem.cache_clear()


def use(server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point this process's AWS environment at a server; storage forgets earlier connections."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    storage._filesystem.cache_clear()
