"""The loader against the step."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.doctor.loader_check import loader_check
from tests.doctor.checkups import small_checkup


@pytest.mark.parametrize(
    ("needed", "status"), [(None, "ok"), (1.0, "ok"), (1e9, "failed")], ids=["unknown", "slow", "fast"]
)
def test_a_loader_that_is_slower_than_the_step_fails(
    needed: float | None, status: str, tmp_path: Path
) -> None:
    check = loader_check(small_checkup(tmp_path), needed)
    assert check.status == status
    assert check.value
    assert ("data.workers=" in check.what_to_do) == (status == "failed")


def test_a_damaged_set_is_told(tmp_path: Path) -> None:
    checkup = small_checkup(tmp_path)
    for path in (tmp_path / "set").glob("*.tar"):
        path.write_bytes(b"")
    check = loader_check(checkup, 1.0)
    assert check.status == "failed"
    assert "rank 0: " in check.text
