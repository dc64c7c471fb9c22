"""What a store says of a run's files without reading them: sizes and times, in as few requests as it allows.

On a disk some folders are listed. On S3 one listing of everything below the run gives all of it, a thousand
keys a request.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from retfound_dist.io import s3_keys, storage, urls


@dataclass(frozen=True)
class FileState:
    """A file that is there; the same mark means that it was not written again."""

    bytes: int
    tag: str
    """Time on a disk, ETag and time on S3."""


def marks_of(url: str, files: frozenset[str], inner: Mapping[str, str]) -> dict[str, FileState]:
    """Marks of some files of a folder, and of one file in each folder of some folders.

    `inner`: folder -> file, as `{"checkpoints": "COMMIT.json"}` for `checkpoints/*/COMMIT.json`. By their
    path below the folder; what is not there is left out. StorageError where the store cannot be asked.
    """

    def is_wanted(path: str) -> bool:
        parts = path.split("/")
        return path in files or (len(parts) == 3 and inner.get(parts[0]) == parts[2])

    with storage.explained(url, "list"):
        if storage.is_local(url):
            return dict(_on_disk(storage.local_path(url), files, inner))
        found = _on_s3(url) if urls.scheme_of(url) == "s3" else _elsewhere(url)
        return {path: mark for path, mark in found if is_wanted(path)}


def _on_disk(folder: str, files: frozenset[str], inner: Mapping[str, str]) -> Iterator[tuple[str, FileState]]:
    for entry in os.scandir(folder):
        if entry.name in files and entry.is_file():
            yield entry.name, _mark(entry.stat())
        elif entry.name in inner and entry.is_dir():
            for name in os.listdir(entry.path):
                path = f"{name}/{inner[entry.name]}"
                try:
                    yield f"{entry.name}/{path}", _mark(os.stat(os.path.join(entry.path, path)))
                except (FileNotFoundError, NotADirectoryError):
                    continue


def _mark(found: os.stat_result) -> FileState:
    return FileState(found.st_size, str(found.st_mtime_ns))


def _on_s3(url: str) -> Iterator[tuple[str, FileState]]:
    inside = f"{urls.key_of(url)}/".lstrip("/")
    asked = {"Bucket": urls.bucket_of(url), "Prefix": inside}
    for page in s3_keys.pages(storage.open_fs(url)[0], **asked):
        for each in page.get("Contents", []):
            tag = f"{each.get('ETag')} {each.get('LastModified')}"
            yield each["Key"][len(inside) :], FileState(int(each["Size"]), tag)


def _elsewhere(url: str) -> Iterator[tuple[str, FileState]]:
    fs, path = storage.open_fs(url)
    for name, about in fs.find(path, detail=True).items():
        yield name[len(path.rstrip("/")) + 1 :], FileState(int(about["size"]), str(about.get("created", "")))
