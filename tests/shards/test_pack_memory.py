"""What plan and manifest take in memory, the short version of benchmarks/pack_memory.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.pack_memory import draw_images, peak_memory

ROW_BYTES = 700
"""At some ten thousand rows; buffers that large sets give back to the system weigh more here."""


@pytest.mark.slow
def test_a_row_of_plan_and_manifest_takes_some_hundred_bytes(tmp_path: Path) -> None:
    few, many = 20_000, 80_000
    used = []
    for count in (few, many):
        (tmp_path / str(count)).mkdir()
        used.append(peak_memory("rows", count, str(tmp_path / str(count)))["bytes"])
    assert (used[1] - used[0]) / (many - few) < ROW_BYTES


@pytest.mark.slow
def test_four_times_the_images_take_no_more_memory(tmp_path: Path) -> None:
    used = []
    for count in (30, 120):
        draw_images(count, str(tmp_path))
        used.append(peak_memory("pixels", count, str(tmp_path))["bytes"])
    assert used[1] < used[0] * 1.1
