"""A rank's share of its host's cores: shared cores, cores of its own, and a container's limit."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from retfound_dist.runtime import host_cores
from retfound_dist.runtime.host_cores import AllowedCores, allowed_cores, cores_per_rank


def ranks(*cores: range, host: str = "a", limit: float = math.inf) -> list[AllowedCores]:
    return [AllowedCores(host, frozenset(one), limit) for one in cores]


def test_ranks_that_share_cores_divide_them_and_ranks_with_cores_of_their_own_keep_them() -> None:
    shared, bound = ranks(*[range(96)] * 8), ranks(*(range(12 * n, 12 * n + 12) for n in range(8)))
    assert cores_per_rank(shared[0], shared) == 12
    assert cores_per_rank(bound[3], bound) == 12
    # Ranks of other hosts do not count, though their cores have the same numbers.
    others = ranks(*[range(4)] * 4, host="b")
    assert cores_per_rank(shared[0], [*shared, *others]) == 12
    assert cores_per_rank(others[0], [*shared, *others]) == 1


def test_a_container_s_limit_counts_for_all_its_ranks() -> None:
    limited = ranks(*[range(96)] * 4, limit=10.0)
    assert cores_per_rank(limited[0], limited) == 2.5


@pytest.mark.parametrize(
    ("content", "limit"), [("150000 100000\n", 1.5), ("max 100000\n", math.inf), (None, math.inf)]
)
def test_the_limit_is_read_from_the_control_group(
    content: str | None, limit: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_cores, "CPU_LIMIT", str(tmp_path / "cpu.max"))
    if content:
        (tmp_path / "cpu.max").write_text(content)
    assert allowed_cores().limit == limit
    assert allowed_cores().cores == os.sched_getaffinity(0)


def test_a_process_alone_may_use_its_cores_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_cores, "_container_limit", lambda: 0.5)
    assert host_cores.usable_cores() == 0.5
    monkeypatch.setattr(host_cores, "_container_limit", lambda: math.inf)
    assert host_cores.usable_cores() == len(os.sched_getaffinity(0))
