"""Folders of files and links, for tests of what is found in them."""

from __future__ import annotations

from pathlib import Path

from retfound_dist.files.folder_walk import FolderFiles


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def link(path: Path, target: Path | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def sentences(found: FolderFiles) -> str:
    return "\n".join(found.skipped.lines("data.follow_links=anywhere"))
