"""Fixtures for all tests."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from retfound_dist.train.ranks.preemption import SIGNALS
from tests import ROOT
from tests.small_disks import disk_at

CLUSTER = "cluster"
LINEAR = torch.nn.functional.linear


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side (`pytest -n 2 --dist loadgroup`) a module's tests stay together, and so do those on real
    parts, which share one Slurm."""
    slow_tests = Counter[str]()
    for item in items:
        slow_tests[group_of(item)] += item.get_closest_marker("slow") is not None
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
    # Long groups first: with one of them at the end, all other workers would wait for it.
    items.sort(key=lambda item: (group_of(item) != CLUSTER, -slow_tests[group_of(item)]))


def group_of(item: pytest.Item) -> str:
    """The name of the tests that run one after the other."""
    parts = item.path.relative_to(ROOT / "tests").with_suffix("").parts
    return CLUSTER if parts[0] == CLUSTER else "/".join(parts)


@pytest.fixture(scope="session", autouse=True)
def _own_secret(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither make nor read this user's secret for names, and leave no table of names behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETFOUND_SALT", "a secret for tests only")
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("share")))
        yield


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """`main(["pretrain", ...])` blocks signals in its process. Processes that later tests start would inherit
    this, and SIGTERM would not end them."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """A run in this process sets variables, such as DS_ACCELERATOR on a CPU. A process that a later test
    starts on a pretended GPU would take them over."""
    before = dict(os.environ)
    yield
    changed = {name for name in before.keys() | os.environ.keys() if os.environ.get(name) != before.get(name)}
    for name in changed - {"PYTEST_CURRENT_TEST"}:
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]


@pytest.fixture(autouse=True)
def _own_threads() -> Iterator[None]:
    """`main(["pretrain", ...])` sets the threads of its process. Last digits depend on their number, and a
    later test would compare with a process that has another one."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", autouse=True)
def _own_linear() -> Iterator[None]:
    """DeepSpeed's ZeRO 3 replaces `linear` for the rest of the process. It rounds otherwise, and cannot be
    exported."""
    yield
    torch.nn.functional.linear = LINEAR


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 160 MB: room for one checkpoint of a small run, not for two."""
    with disk_at(tmp_path / "small", "size=160m") as folder:
        yield folder


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real OCT images: $RETFOUND_TEST_DATA, or `../shared/data` beside the repository."""
    folder = Path(os.environ.get("RETFOUND_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "octdl").is_dir():
        pytest.skip(f"no real images in {folder}: set RETFOUND_TEST_DATA to the folder that holds octdl/")
    return folder
