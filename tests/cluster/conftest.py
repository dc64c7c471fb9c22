"""Fixtures of the tests on real parts. In CI (`CI=true`) a missing system package fails a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from retfound_dist.io import storage
from tests.cluster import real_parts, real_s3, real_slurm
from tests.cluster.real_s3 import S3
from tests.cluster.real_slurm import Slurm


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder is a cluster test, and slow."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def ceph_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """One Ceph RGW for all tests that ask for it."""
    with real_s3.ceph(tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """One rclone S3 server for all tests that ask for it."""
    with real_s3.rclone(tmp_path_factory.mktemp("rclone") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """One Slurm of two nodes for all tests that ask for it."""
    with real_slurm.slurm(tmp_path_factory.mktemp("slurm") / "cluster") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def slurm_ceph(slurm: Slurm) -> S3:
    """One Ceph RGW that the nodes of that Slurm reach."""
    return slurm.ceph()


@pytest.fixture(params=["ceph", "rclone"])
def s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A fresh bucket on each server, this process's environment set to reach it."""
    server = real_s3.with_new_bucket(request.getfixturevalue(f"{request.param}_server"))
    real_s3.use(server, monkeypatch)
    yield server
    storage._filesystem.cache_clear()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone whose trainer is the stand-in."""
    return real_parts.clone_with_stand_in(tmp_path)
