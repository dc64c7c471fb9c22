"""A folder of image files, as most labelled sets come.

    <class>/*.jpg                     label from the folder
    train|val|test/<class>/*.jpg      OCTID's layout: split and label from the folders
    *.jpg                             no label
    manifest.csv                      beside any of these; columns file, label, patient, split

Where there is a `manifest.csv` it is the list: its rows say label, patient and split (an empty cell
leaves it to the folders), and an image that it does not name is kept out, for its patient is unknown.
"""

from __future__ import annotations

import csv
import os
import stat
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from retfound_dist import storage
from retfound_dist.errors import ConfigError, DataError
from retfound_dist.shardset import SPLITS
from shards.record import Pixels, Scan, printable, unique_keys

EXTENSIONS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
LISTING = "manifest.csv"
MAX_FILE_BYTES = 256_000_000
"""No single B-scan is larger; what is, is not read into memory."""


@dataclass(frozen=True)
class _Row:
    """What a listing says of one file."""

    label: str | None
    patient: str | None
    split: str | None


def list_folder(path: str, name: str = "") -> list[Scan]:
    """Every image below a folder, in the order of its path; DataError where there is none."""
    root = check_folder(path)
    rows = read_listing(os.path.join(root, LISTING)) if os.path.isfile(os.path.join(root, LISTING)) else None
    return scans_of(root, path, walk(root), rows, name)


def scans_of(
    root: str,
    path: str,
    files: Iterable[tuple[str, int | None]],
    rows: Mapping[str, _Row] | None = None,
    name: str = "",
) -> list[Scan]:
    """`list_folder` of files that are known; millions of them are kept in few objects each."""
    paths, sizes = [], array("q")
    for file, size in files:
        paths.append(file)
        sizes.append(-1 if size is None else size)
    missing = (rows or {}).keys() - set(paths if rows else ())
    paths += missing
    sizes.extend([-1] * len(missing))
    order = sorted(range(len(paths)), key=paths.__getitem__)
    paths, sizes = [paths[place] for place in order], array("q", (sizes[place] for place in order))
    del order
    if not paths:
        raise DataError(
            f"no images in {path}: give source.path a folder with {', '.join(e[1:] for e in EXTENSIONS)} "
            "files, such as <class>/*.jpg or train|val|test/<class>/*.jpg"
        )
    source = name or os.path.basename(root) or "folder"
    scans = []
    for file, size, key in zip(paths, sizes, unique_keys(paths), strict=True):
        scan = _scan(root, file, key, source, size if size >= 0 else None)
        scans.append(scan if rows is None else _apply(rows.get(file), scan))
    return scans


class InFolder:
    """A scan's `read`: `read_inside` of a file, in a quarter of the memory of a partial function."""

    __slots__ = ("file", "root")

    def __init__(self, root: str, file: str) -> None:
        self.root, self.file = root, file

    def __call__(self) -> bytes:
        """The file's bytes."""
        return read_inside(self.root, self.file)


def read_inside(root: str, file: str) -> bytes:
    """The bytes of a regular file that really lies below `root` (a link may lead elsewhere)."""
    folder, name = os.path.split(file)
    path = os.path.join(real_folder(root, folder), name)
    if os.path.islink(path) or name == "..":
        path = _inside(root, os.path.realpath(path))
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise DataError("is not a regular file (links to folders are not followed)")
    with open(path, "rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise DataError(f"has {size:,} bytes, more than the {MAX_FILE_BYTES:,} of any B-scan")
        return stream.read()


@lru_cache(maxsize=4096)
def real_folder(root: str, folder: str) -> str:
    """The real path of a folder below `root`; DataError where it leads out of it."""
    return _inside(root, os.path.realpath(os.path.join(root, folder)))


def _inside(root: str, real: str) -> str:
    if os.path.commonpath([root, real]) != root:
        raise DataError("leads out of its folder (symbolic links and .. are not followed)")
    return real


def read_listing(path: str) -> dict[str, _Row]:
    """`manifest.csv` as file -> what it says; DataError names the line that is wrong."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = list(reader.fieldnames or [])
            if "file" not in columns:
                raise DataError(
                    f"{path} has no column 'file' (it has {', '.join(columns) or 'none'}): "
                    "its header must be file,label,patient or file,label,patient,split"
                )
            rows: dict[str, _Row] = {}
            for row in reader:
                where = f"{path} line {reader.line_num}"
                file = os.path.normpath((row["file"] or "").strip().replace("\\", "/"))
                if file in rows:
                    raise DataError(f"{where}: {printable(file)} is listed twice; keep one line a file")
                rows[file] = _parse_row(row, where)
            return rows
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a UTF-8 CSV file ({error}): save it as one, or remove it") from error


def _parse_row(row: Mapping[str, str | None], where: str) -> _Row:
    label, patient, split = ((row.get(name) or "").strip() or None for name in ("label", "patient", "split"))
    if split and split.lower() not in SPLITS:
        raise DataError(f"{where}: split {split!r} is not train, val or test; correct it or leave it empty")
    return _Row(label, patient, SPLITS[split.lower()] if split else None)


def check_folder(path: str) -> str:
    """The real path of a folder that is there; ConfigError or DataError."""
    if not path:
        raise ConfigError("source.path is empty: give the folder of images, such as source.path=data/octid")
    root = os.path.realpath(storage.local_path(path))
    if not os.path.exists(root):
        raise DataError(f"there is no folder {path}: check source.path")
    if not os.path.isdir(root):
        raise DataError(f"{path} is a file, not a folder of images: check source.path")
    return root


def walk(root: str, extensions: tuple[str, ...] = EXTENSIONS) -> Iterator[tuple[str, int | None]]:
    """(relative path, bytes) of everything whose name ends like an image's, or as `extensions` say.

    A link to a folder is not entered but listed, without a size: reading it fails by name, instead of
    passing over in silence what lies behind it.
    """
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                for entry in entries:
                    file = os.path.join(folder, entry.name)
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(file)
                    elif entry.is_symlink() and os.path.isdir(entry.path):
                        yield file, None
                    elif entry.name.lower().endswith(extensions):
                        yield file, None if entry.is_symlink() else entry.stat().st_size
        except OSError as error:
            raise DataError(
                f"cannot list {printable(os.path.join(root, folder))}: {error.strerror}; check its rights"
            ) from error


def _scan(root: str, file: str, key: str, source: str, size: int | None) -> Scan:
    split, label = _part_and_class(os.path.dirname(file))
    read = InFolder(root, file)
    name = printable(file)
    return Scan(key=key, origin=name, source=source, read=read, size=size, label=label, split=split)


@lru_cache(maxsize=4096)
def _part_and_class(folder: str) -> tuple[str | None, str | None]:
    folders = folder.split("/") if folder else []
    split = SPLITS.get(folders[0].lower()) if folders else None
    if split:
        folders = folders[1:]
    return split, printable(folders[0]) if folders else None


def _apply(row: _Row | None, scan: Scan) -> Scan:
    if row is None:
        return replace(scan, read=_not_listed)
    return replace(scan, label=row.label or scan.label, patient=row.patient, split=row.split or scan.split)


def _not_listed() -> bytes | Pixels:
    raise DataError(f"is not listed in the {LISTING} beside it")
