"""Parts beside a target are deleted; files that are no parts stay."""

from __future__ import annotations

from pathlib import Path

from retfound_dist.io import finished_parts


def test_parts_are_deleted_with_their_folder_and_other_files_stay(tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    folder = Path(finished_parts.parts_url(str(out)))
    part, mine = folder / f"{'0a' * 16}.npz", folder / "mine.npz"
    folder.mkdir()
    part.write_bytes(b"x")
    mine.write_bytes(b"y")
    finished_parts.delete_parts(str(out))
    assert list(folder.iterdir()) == [mine]
    mine.unlink()
    finished_parts.delete_parts(str(out))
    assert not folder.exists()
    finished_parts.delete_parts(str(out))  # nothing to delete
