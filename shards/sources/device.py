"""A folder of device files (volumes.py says which): every B-scan of every volume.

A `train|val|test` folder at the top gives the part. Hospitals write names of people into the names of
files and folders, so there is no label from them, and keys, volumes and messages bear a digest of the path:

    printf %s sub/folder/file.vol | sha256sum | cut -c1-8

Decoded volumes are kept, up to CACHE_BYTES a process; slices are shuffled over shards, so that a larger
folder is decoded more than once.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from functools import partial
from typing import Any

from retfound_dist.errors import DataError
from retfound_dist.folder_layout import nothing_found
from retfound_dist.folder_walk import Links
from retfound_dist.image_files import find_files
from retfound_dist.shardset import SPLITS
from shards.record import Listing, Pixels, Scan
from shards.sources.folder import FOLLOW, check_folder
from shards.sources.volume import Volume
from shards.sources.volumes import READERS, read_volumes

CACHE_BYTES = 512_000_000
"""Of decoded volumes in each process; one volume may be larger and is then kept alone."""
_kept: OrderedDict[tuple[str, float, int], list[Volume]] = OrderedDict()


def list_device(
    path: str, name: str = "", links: Links = "inside", ends: tuple[str, ...] = tuple(READERS)
) -> Listing:
    """Every B-scan of the device files below a folder; a file that cannot be read is listed to be named."""
    root = check_folder(path)
    found = find_files(root, ends, links)
    files = dict(zip(found.paths, found.sizes, strict=True))
    if not files:
        passed = nothing_found(found, FOLLOW, named=False)
        raise DataError(f"no device files in {path}: it takes {', '.join(ends)}{passed}")
    scans: list[Scan] = []
    for file, size in files.items():
        scans += list_file(root, file, size, name or "device")
    bad = len({scan.volume for scan in scans if scan.slice is None})
    notes = [f"{len(files):,} files, {len({scan.volume for scan in scans}):,} volumes"]
    return Listing(scans, (*notes, *([f"{bad:,} files cannot be read"] if bad else [])))


def list_file(root: str, file: str, size: int | None, source: str) -> list[Scan]:
    """The B-scans of one device file."""
    token = hashlib.sha256(os.fsencode(file)).hexdigest()[:8]
    extension = os.path.splitext(file)[1].lower()
    folders = file.split("/")[:-1]
    split = SPLITS.get(folders[0].lower()) if folders else None
    known: dict[str, Any] = {"source": source, "size": size, "split": split}
    try:
        volumes = kept_volumes(root, file)
    except (DataError, OSError) as error:
        reason = str(error) if isinstance(error, DataError) else error.strerror or "cannot be read"
        read, volume = partial(_refuse, reason), f"v{token}"
        return [Scan(key=volume, origin=f"v{token}{extension}", read=read, volume=volume, **known)]
    return [
        Scan(
            key=f"v{token}_{number}_{place:04d}",
            origin=f"v{token}{extension} volume {number} slice {place}",
            read=partial(read_slice, root, file, number, place),
            patient=volume.patient or f"v{token}",
            eye=volume.eye,
            volume=f"v{token}_{number}",
            slice=place,
            **known,
        )
        for number, volume in enumerate(volumes)
        for place in range(len(volume.slices))
    ]


def read_slice(root: str, file: str, number: int, place: int) -> Pixels:
    """One B-scan, from the volumes this process keeps; DataError where the file has changed."""
    try:
        return kept_volumes(root, file)[number].slices[place]
    except IndexError:
        raise DataError("is no longer in its file, which has changed") from None


def kept_volumes(root: str, file: str) -> list[Volume]:
    """The volumes of a regular file below `root`, decoded once while there is room for them."""
    real = os.path.realpath(os.path.join(root, file))
    if os.path.commonpath([root, real]) != root or not os.path.isfile(real):
        raise DataError("is not a regular file in its folder (links out of it are not followed)")
    info = os.stat(real)
    key = (real, info.st_mtime, info.st_size)
    if key not in _kept:
        _kept[key] = read_volumes(real)
        while len(_kept) > 1 and sum(map(_bytes, _kept.values())) > CACHE_BYTES:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return _kept[key]


def _bytes(volumes: list[Volume]) -> int:
    return sum(scan.nbytes for volume in volumes for scan in volume.slices)


def _refuse(reason: str) -> Pixels:
    raise DataError(reason)
