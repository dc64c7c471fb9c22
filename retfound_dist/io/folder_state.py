"""Sizes and change tags of a run's files, in as few requests as the store allows, without reading the files.

On a disk it lists a few folders. On S3 it lists all keys below the run, a thousand with each request.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from retfound_dist.io import storage, urls
from retfound_dist.io.stores import s3_keys


@dataclass(frozen=True)
class FileState:
    """Size and tag of a file. An equal tag means that the file was not written again."""

    bytes: int
    tag: str
    """On a disk the modification time, on S3 the ETag and the time."""


def file_states(url: str, files: frozenset[str], subfolder_files: Mapping[str, str]) -> dict[str, FileState]:
    """States of some files of a folder, and of one file in each subfolder of some folders.

    `subfolder_files` maps a folder to a file name: `{"checkpoints": "COMMIT.json"}` means
    `checkpoints/*/COMMIT.json`. Keys of the result are paths below the folder. Files that do not exist are
    left out. Raises StorageError where the store cannot be reached.
    """

    def is_wanted(path: str) -> bool:
        parts = path.split("/")
        return path in files or (len(parts) == 3 and subfolder_files.get(parts[0]) == parts[2])

    with storage.storage_errors(url, "list"):
        if storage.is_local(url):
            return dict(_local_states(storage.local_path(url), files, subfolder_files))
        states = _s3_states(url) if urls.scheme_of(url) == "s3" else _other_states(url)
        return {path: state for path, state in states if is_wanted(path)}


def _local_states(
    folder: str, files: frozenset[str], subfolder_files: Mapping[str, str]
) -> Iterator[tuple[str, FileState]]:
    """Path and state of each file of a local folder that is named in `files`, or is in `subfolder_files`.

    `subfolder_files`: name of a subfolder -> name of a file, which is looked for in all its folders.
    """
    for entry in os.scandir(folder):
        if entry.name in files and entry.is_file():
            yield entry.name, _state_of(entry.stat())
        elif entry.name in subfolder_files and entry.is_dir():
            for name in os.listdir(entry.path):
                # One stat instead of a listing: a checkpoint's folder has files of every rank.
                path = f"{name}/{subfolder_files[entry.name]}"
                try:
                    yield f"{entry.name}/{path}", _state_of(os.stat(f"{entry.path}/{path}"))
                # A running job may remove an old checkpoint between the listing and the stat.
                except (FileNotFoundError, NotADirectoryError):
                    continue


def _state_of(stat_result: os.stat_result) -> FileState:
    return FileState(stat_result.st_size, str(stat_result.st_mtime_ns))


def _s3_states(url: str) -> Iterator[tuple[str, FileState]]:
    prefix = f"{urls.key_of(url)}/".lstrip("/")
    request = {"Bucket": urls.bucket_of(url), "Prefix": prefix}
    for page in s3_keys.pages(storage.open_fs(url)[0], **request):
        for entry in page.get("Contents", []):
            tag = f"{entry.get('ETag')} {entry.get('LastModified')}"
            yield entry["Key"][len(prefix) :], FileState(int(entry["Size"]), tag)


def _other_states(url: str) -> Iterator[tuple[str, FileState]]:
    fs, path = storage.open_fs(url)
    for name, file_info in fs.find(path, detail=True).items():
        yield (
            name[len(path.rstrip("/")) + 1 :],
            FileState(int(file_info["size"]), str(file_info.get("created", ""))),
        )
