"""Parts beside a target are deleted; files that are no parts stay."""

from __future__ import annotations

import os
import time
from pathlib import Path

from retfound_dist.io import finished_parts


def test_parts_are_deleted_with_their_folder_and_other_files_stay(tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    folder = Path(finished_parts.parts_url(str(out)))
    part, mine = folder / f"{'0a' * 16}.npz", folder / "mine.npz"
    folder.mkdir()
    part.write_bytes(b"x")
    mine.write_bytes(b"y")
    finished_parts.delete_parts(str(out), time.time())
    assert list(folder.iterdir()) == [mine]
    mine.unlink()
    finished_parts.delete_parts(str(out), time.time())
    assert not folder.exists()
    finished_parts.delete_parts(str(out), time.time())  # nothing to delete


def test_what_a_killed_command_left_half_written_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    out, began = tmp_path / "p.csv", time.time() - 100
    folder = Path(finished_parts.parts_url(str(out)))
    folder.mkdir()
    part = f"{'0a' * 16}.npz"
    old = [folder / f"{part}.0123abcd.tmp", tmp_path / "p.csv.0123abcd.tmp"]
    kept = [tmp_path / "pxcsv.0123abcd.tmp", tmp_path / "p.csv.npz", tmp_path / "p.csv.0123abcd.tmp.csv"]
    for file in [*old, *kept]:
        file.write_bytes(b"x")
        os.utime(file, (began - 1, began - 1))
    young = tmp_path / "p.csv.4567abcd.tmp"  # of a process that writes the same target now
    young.write_bytes(b"x")
    finished_parts.delete_parts(str(out), began)
    assert sorted(tmp_path.iterdir()) == sorted([*kept, young])
