"""Files of a disk: whole or not there. What all kinds of stores have in common: tests/io/test_storage.py."""

import os
from pathlib import Path

import pytest

from retfound_dist.io.stores import local_disk
from retfound_dist.io.stores.local_disk import LocalDisk


def _write_and_stop(target: str) -> None:
    with local_disk.part_file(target) as part:
        Path(part).write_text("newer")
        raise KeyboardInterrupt


def test_a_part_is_renamed_at_the_end_and_removed_after_an_error(tmp_path: Path) -> None:
    target = tmp_path / "x"
    with local_disk.part_file(str(target)) as part:
        Path(part).write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    with pytest.raises(KeyboardInterrupt):
        _write_and_stop(str(target))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x": "new"}


def test_a_draft_lies_beside_its_target_until_it_is_finished(tmp_path: Path) -> None:
    target = tmp_path / "new" / "x"
    draft = local_disk.draft_beside(str(target))
    assert Path(draft).parent == target.parent
    Path(draft).write_text("content")
    local_disk.finish_draft(draft, str(target))
    assert [path.name for path in target.parent.iterdir()] == ["x"]


def test_a_link_is_deleted_and_the_folder_behind_it_stays(tmp_path: Path) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    (folder / "x").write_text("x")
    link.symlink_to(folder)
    LocalDisk().delete(str(link))
    assert not os.path.lexists(link)
    assert (folder / "x").exists()


def test_a_file_has_a_mark_once_it_is_old_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_text("x")
    assert LocalDisk().version_mark(str(path)) == ""
    monkeypatch.setattr(local_disk, "STABLE_AFTER_S", 0.0)
    first = LocalDisk().version_mark(str(path))
    path.write_text("yy")
    assert first
    assert LocalDisk().version_mark(str(path)) != first
