"""What the checks share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doctor.checkups import small_checkup


def test_hosts_and_seconds_follow_from_ranks_and_minutes(tmp_path: Path) -> None:
    checkup = small_checkup(tmp_path, minutes=5, size=16, local_size=8)
    assert checkup.hosts == 2
    assert checkup.seconds(0.1) == pytest.approx(30)
    assert not checkup.on_gpu
