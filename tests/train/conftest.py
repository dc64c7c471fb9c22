"""What several tests of training share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from retfound_dist.runtime.world import World
from retfound_dist.train.ranks.collectives import RankGroup
from retfound_dist.train.ranks.process_group import join_ranks, leave_ranks


@pytest.fixture(scope="session")
def _joined() -> Iterator[tuple[RankGroup, dict[str, str]]]:
    """This process as a group of one, with the environment that joining sets.

    One for all tests of a process: DeepSpeed (0.19.8) remembers its first process group beyond the group's end,
    and builds no engine in a second one.
    """
    before, threads = dict(os.environ), torch.get_num_threads()
    group = join_ranks(World(), threads=1)
    joined = dict(os.environ)
    _restore(before, threads)
    yield group, joined
    leave_ranks()


@pytest.fixture(scope="module")
def alone(_joined: tuple[RankGroup, dict[str, str]]) -> Iterator[RankGroup]:
    """This process as a group of one; environment and threads are put back afterwards."""
    before, threads = dict(os.environ), torch.get_num_threads()
    _restore(_joined[1], 1)
    yield _joined[0]
    _restore(before, threads)


def _restore(environment: dict[str, str], threads: int) -> None:
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(threads)
