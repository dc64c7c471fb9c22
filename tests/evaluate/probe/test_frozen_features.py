"""Features that are kept in a file: what is damaged is made again, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retfound_dist.errors import DataError
from retfound_dist.evaluate.commands.embed import _read_part
from retfound_dist.evaluate.probe.frozen_features import _read, npz_bytes, read_npz


def damaged() -> list[bytes]:
    rows = np.arange(300, dtype=np.float32).reshape(100, 3)
    data = npz_bytes({"identity": np.array("x"), "train": rows})
    at = data.index(rows.tobytes()[:64]) + 30
    return [
        data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
        data[: len(data) // 2],
        b"",
        b"no archive",
        b"\x93NUMPY",
    ]


@pytest.mark.parametrize("kind", range(5))
def test_a_damaged_file_is_refused_by_name_and_no_cache(kind: int, tmp_path: Path) -> None:
    url = str(tmp_path / "features.npz")
    Path(url).write_bytes(damaged()[kind])
    with pytest.raises(DataError, match=r"features\.npz is not a complete \.npz file"):
        read_npz(url)
    assert _read(url, "x") == {}
    assert _read_part(url) is None


def test_a_whole_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    url = str(tmp_path / "features.npz")
    Path(url).write_bytes(npz_bytes({"identity": np.array("x"), "train": np.ones((2, 3), np.float32)}))
    assert _read(url, "x")["train"].tolist() == np.ones((2, 3)).tolist()
    assert _read(url, "another") == {}
