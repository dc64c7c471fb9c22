"""Lists every B-scan of every volume in a folder of device files (formats: volume_formats.py).

Sound files that hold no B-scans (DICOM of another modality, XML and .mat of other programs) are left aside
and counted in a note; so is what is no device file. DICOM is found by its content under any name.

A `train|val|test` folder at the top gives the part. Hospitals write names of people into the names of
files and folders, so there is no label from them, and keys, volumes and messages bear a digest of the path:

    printf %s sub/folder/file.vol | sha256sum | cut -c1-8

Where a file names no patient, its volumes are kept in one part, and so are the few files of one folder where
there are several such folders: hospitals export a folder a patient, and both eyes lie in it.

Decoded volumes are kept, up to CACHE_BYTES a process; slices are shuffled over shards, so that a larger
folder is decoded more than once.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from retfound_dist.errors import DataError
from retfound_dist.files.folder_walk import Links, is_below
from retfound_dist.files.image_files import find_files
from retfound_dist.formats.shard_set import SPLITS
from shards.images.scan import Pixels, Scan, SourceListing
from shards.sources.devices.dicom import has_preamble
from shards.sources.devices.volume import FileWithoutScans, Volume
from shards.sources.devices.volume_formats import READERS, read_volumes
from shards.sources.folders.folder import FOLLOW, check_folder

CACHE_BYTES = 512_000_000
"""Of decoded volumes in each process; one volume may be larger and is then kept alone."""
EVERY = tuple(READERS)
NAMED = 5
"""Files that a note names of each reason."""
COMMON = (
    *(".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".mp4", ".avi", ".pdf", ".zip"),
    *(".txt", ".csv", ".xlsx", ".xls", ".json", ".ini", ".log", ".db"),
)
"""Ends of names that a note may show; another may be part of a person's name."""
MAX_PATIENT_FILES, MIN_PATIENT_FOLDERS = 16, 5
"""A folder of more files, or one of few folders, is taken for a part of the set and not for a patient."""
# The plan shuffles slices, and each is read by itself.
# Without what is kept here a volume would be decoded once for every slice.
_volume_cache: OrderedDict[tuple[str, float, int], list[Volume]] = OrderedDict()


def list_device(
    path: str, name: str = "", links: Links = "inside", ends: tuple[str, ...] = EVERY
) -> SourceListing:
    """Every B-scan of the device files below a folder; a file that cannot be read is listed to be named."""
    root = check_folder(path)
    # Every file: DICOM is known by its content and may have any name.
    found_files = find_files(root, ends if ends != EVERY else ("",), links)
    every = dict(zip(found_files.paths, found_files.sizes, strict=True))
    files = {file: size for file, size in every.items() if _is_device_file(root, file, ends)}
    scans: list[Scan] = []
    aside: dict[str, str] = {}
    used: set[str] = set()
    shown: Counter[tuple[str, ...]] = Counter()
    groups = patient_folders(files)
    for file, size in files.items():
        listed = list_file(root, file, size, name or "device", aside, links)
        group = groups.get(os.path.dirname(file))
        # A folder that looks like one patient's keeps its files together where no number does.
        scans += [scan if scan.patient or not group else replace(scan, group=group) for scan in listed]
        if listed and listed[0].slice is not None:
            volumes = cached_volumes(root, file, links)
            used |= _beside(file, volumes)
            shown[volumes[0].not_applied] += 1
    others = [file for file in every if file not in files and file not in used]
    notes = [*_counts(files, aside, scans), *_not_applied(shown), *_reasons(aside), *_strangers(others)]
    notes += (
        found_files.passed.lines(FOLLOW, named=False) if ends == EVERY else []
    )  # else the caller tells it
    if not scans:
        all_notes = "".join(f"; {note}" for note in notes[1:])
        raise DataError(f"no device files with B-scans in {path}: it takes {', '.join(ends)}{all_notes}")
    return SourceListing(scans, tuple(notes))


def _is_device_file(root: str, file: str, ends: tuple[str, ...]) -> bool:
    """Whether a file is one by its name, or is DICOM by its content."""
    if file.lower().endswith(ends):
        return True
    try:
        return ends == EVERY and has_preamble(os.path.join(root, file))
    except OSError:
        return False


def patient_folders(files: Iterable[str]) -> dict[str, str]:
    """Folder -> a digest of its path, for folders that look like one patient's: few files, and many such."""
    counts = Counter(os.path.dirname(file) for file in files)
    inner = {folder: count for folder, count in counts.items() if folder and folder.lower() not in SPLITS}
    small = [folder for folder, count in inner.items() if count <= MAX_PATIENT_FILES]
    return {folder: f"d{_token(folder)}" for folder in small} if len(small) >= MIN_PATIENT_FOLDERS else {}


def list_file(
    root: str,
    file: str,
    size: int | None,
    source: str,
    aside: dict[str, str] | None = None,
    links: Links = "inside",
) -> list[Scan]:
    """The B-scans of one device file.

    A sound file without any goes into `aside` with the reason; where there is no `aside` it counts as a
    file that cannot be read.
    """
    token = _token(file)
    extension = _extension(file)
    folders = file.split("/")[:-1]
    split = SPLITS.get(folders[0].lower()) if folders else None
    known: dict[str, Any] = {"source": source, "size": size, "split": split}
    try:
        volumes = cached_volumes(root, file, links)
    except (DataError, OSError) as error:
        reason = str(error) if isinstance(error, DataError) else error.strerror or "cannot be read"
        if isinstance(error, FileWithoutScans) and aside is not None:
            aside[file] = reason
            return []
        read, volume = partial(_refuse, reason, file), f"v{token}"
        return [Scan(key=volume, origin=f"v{token}{extension}", read=read, volume=volume, **known)]
    return [
        Scan(
            key=f"v{token}_{number}_{place:04d}",
            origin=f"v{token}{extension} volume {number} slice {place}",
            read=partial(read_cached_slice, root, file, number, place, links),
            patient=volume.patient,
            eye=volume.eye,
            volume=f"v{token}_{number}",
            group=f"v{token}" if len(volumes) > 1 else None,
            slice=place,
            **known,
        )
        for number, volume in enumerate(volumes)
        for place in range(len(volume.slices))
    ]


def _token(file: str) -> str:
    return hashlib.sha256(os.fsencode(file)).hexdigest()[:8]


def _extension(file: str) -> str:
    """The extension to show. DICOM files may have any, which can be part of a person's name."""
    end = os.path.splitext(file)[1].lower()
    # DICOM may be called IM00001.Smith: what follows the dot is not shown.
    return end if end in EVERY else ".dcm"


def _beside(file: str, volumes: Sequence[Volume]) -> set[str]:
    """Files beside an export that it was read from, or that belong to it."""
    folder = os.path.dirname(file)
    return {os.path.normpath(os.path.join(folder, name)) for volume in volumes for name in volume.beside}


def _not_applied(shown: Mapping[tuple[str, ...], int]) -> Iterator[str]:
    """One line for all windows and rescales that DICOM files hold."""
    files = sum(count for kinds, count in shown.items() if kinds)
    count_of_kind = Counter[str]()
    for kinds, count in shown.items():
        count_of_kind.update(dict.fromkeys(kinds, count))
    if files:
        named = ", ".join(f"{kind} {count:,}" for kind, count in sorted(count_of_kind.items()))
        which = _files(range(files))
        yield f"left aside: window or rescale of {which} ({named}); docs/device_files.md says why"


def _files(some: Collection[object]) -> str:
    return f"{len(some):,} file" + ("" if len(some) == 1 else "s")


def _counts(files: Collection[str], aside: Collection[str], scans: Sequence[Scan]) -> Iterator[str]:
    read = {scan.volume for scan in scans if scan.slice is not None}
    bad = len({scan.volume for scan in scans if scan.slice is None})
    yield f"{len(files) - len(aside):,} files, {len(read) + bad:,} volumes"
    if bad:
        yield f"{bad:,} files cannot be read"


def _reasons(aside: Mapping[str, str]) -> Iterator[str]:
    """One line a reason, with the first files by their digests."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for file, reason in sorted(aside.items()):
        by_reason[reason].append(f"v{_token(file)}{_extension(file)}")
    for reason, names in sorted(by_reason.items()):
        more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
        short_reason = reason.removeprefix("is ")
        yield f"left aside: {_files(names)}: {short_reason} ({', '.join(names[:NAMED])}{more})"


def _strangers(files: Sequence[str]) -> Iterator[str]:
    """One line on files that are no device files. Only common extensions are shown."""
    ends = Counter(os.path.splitext(file)[1].lower() for file in files)
    shown = {end: count for end, count in ends.most_common() if end in COMMON}
    rest = len(files) - sum(shown.values())
    parts = [f"{count:,} {end}" for end, count in shown.items()] + ([f"{rest:,} others"] if rest else [])
    if parts:
        yield f"passed over: {_files(files)}, no device file by name or content: {', '.join(parts)}"


def read_cached_slice(root: str, file: str, number: int, place: int, links: Links = "inside") -> Pixels:
    """One B-scan, from the volumes this process keeps; DataError where the file has changed."""
    try:
        return cached_volumes(root, file, links)[number].slices[place]
    except IndexError:
        raise DataError("is no longer in its file, which has changed") from None


def cached_volumes(root: str, file: str, links: Links = "inside") -> list[Volume]:
    """The volumes of a regular file below `root`, decoded once while there is room for them."""
    real = os.path.realpath(os.path.join(root, file))
    if (links == "inside" and not is_below(root, real)) or not os.path.isfile(real):
        raise DataError("is not a regular file in its folder (links out of it are not followed)")
    info = os.stat(real)
    # A file that was replaced while packing must not give the old pixels.
    key = (real, info.st_mtime, info.st_size)
    if key not in _volume_cache:
        _volume_cache[key] = read_volumes(real)
        # The newest volume always stays: its slices are about to be read.
        while len(_volume_cache) > 1 and sum(map(_bytes, _volume_cache.values())) > CACHE_BYTES:
            _volume_cache.popitem(last=False)
    _volume_cache.move_to_end(key)
    return _volume_cache[key]


def _bytes(volumes: list[Volume]) -> int:
    return sum(scan.nbytes for volume in volumes for scan in volume.slices)


def _refuse(reason: str, file: str) -> Pixels:
    """Raise the reason. `file` is only for the table of names (shards.people.pseudonyms.path_of)."""
    raise DataError(reason)
