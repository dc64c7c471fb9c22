"""Lists every B-scan of every volume in a folder of device files (formats: volume_formats.py).

Valid files without B-scans (DICOM of another modality, XML and .mat of other programs) are ignored. A note
counts them and other files that are not device files. DICOM is found by its content, under any name.

A `train|val|test` folder at the top gives the part. Hospitals often put names of people into names of files
and folders. So folders give no label, and keys, volumes and messages show a digest of the path:

    printf %s sub/folder/file.vol | sha256sum | cut -c1-8

If a file names no patient, its volumes stay in one part. So do the files of a folder with few files, if there
are several such folders: hospitals often export one folder per patient, with both eyes.

Each process caches decoded volumes, up to CACHE_BYTES. Slices are shuffled over shards, so a larger folder is
decoded more than once.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
from shards.sources.devices.volume_formats import READERS, experimental_notes, kind_of, read_volumes
from shards.sources.folders.folder import FOLLOW, check_folder

CACHE_BYTES = 512_000_000
"""Size of the cache in each process. A larger volume is cached alone."""
ALL_EXTENSIONS = tuple(READERS)
MAX_NAMES = 5
"""Files that a note lists for each reason."""
COMMON_EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".mp4", ".avi", ".pdf", ".zip"),
    *(".txt", ".csv", ".xlsx", ".xls", ".json", ".ini", ".log", ".db"),
)
"""Extensions that a note may show. Others may be part of a person's name."""
MAX_PATIENT_FILES, MIN_PATIENT_FOLDERS = 16, 5
"""A folder counts as one patient's only if it has few files and if there are several such folders."""
# The plan shuffles slices and each is read by itself. Without a cache every slice would decode its volume.
_volume_cache: OrderedDict[tuple[str, float, int], list[Volume]] = OrderedDict()


def list_device(
    path: str,
    name: str = "",
    links: Links = "inside",
    extensions: tuple[str, ...] = ALL_EXTENSIONS,
    on_progress: Callable[[int, int], None] | None = None,
) -> SourceListing:
    """Lists every B-scan of the device files below a folder. A file that cannot be read becomes one scan."""
    listing = list_device_files(path, name, links, extensions, on_progress=on_progress)
    if not listing.scans:
        all_notes = "".join(f"; {note}" for note in listing.notes[1:])
        raise DataError(
            f"no device files with B-scans in {path}: it reads {', '.join(extensions)}{all_notes}"
        )
    return listing


def list_device_files(
    path: str,
    name: str = "",
    links: Links = "inside",
    extensions: tuple[str, ...] = ALL_EXTENSIONS,
    apart: tuple[str, ...] = (),
    follow: str = FOLLOW,
    on_progress: Callable[[int, int], None] | None = None,
) -> SourceListing:
    """Lists as `list_device` does; the listing may be empty.

    `apart`: extensions of files that the caller reads itself. They are not opened and no note counts them.
    `follow`: what allows links out of the folder, for the notes. `on_progress`: called with the number of
    files that are listed and of all; each is opened, so thousands take minutes.
    """
    root = check_folder(path)
    # All files, because DICOM may have any name.
    found_files = find_files(root, extensions if extensions != ALL_EXTENSIONS else ("",), links)
    sizes = dict(zip(found_files.paths, found_files.sizes, strict=True))
    files = {
        file: size
        for file, size in sizes.items()
        if not (apart and file.lower().endswith(apart)) and _is_device_file(root, file, extensions)
    }
    scans: list[Scan] = []
    without_scans: dict[str, str] = {}
    companions: set[str] = set()
    formats: set[str] = set()
    settings_counts: Counter[tuple[str, ...]] = Counter()
    groups = patient_folders(files)
    for number, (file, size) in enumerate(files.items()):
        if on_progress:
            on_progress(number, len(files))
        listed = list_file(root, file, size, name or "device", without_scans, links)
        group = groups.get(os.path.dirname(file))
        # Without a patient's number, the files of a patient's folder stay together.
        scans += [scan if scan.patient or not group else replace(scan, group=group) for scan in listed]
        if listed and listed[0].slice is not None:
            volumes = cached_volumes(root, file, links)
            companions |= _companion_paths(file, volumes)
            settings_counts[volumes[0].ignored_settings] += 1
            formats.add(kind_of(os.path.join(root, file)) or "")
    others = tuple(file for file in sizes if file not in files and file not in companions)
    notes = [*_count_notes(files, without_scans, scans), *experimental_notes(formats)]
    notes += [*_settings_note(settings_counts), *_ignored_notes(without_scans)]
    notes += _others_note([file for file in others if not (apart and file.lower().endswith(apart))])
    if extensions == ALL_EXTENSIONS:  # with fewer extensions the caller adds these notes
        notes += found_files.skipped.lines(follow, named=False)
    return SourceListing(scans, tuple(notes), others)


def _is_device_file(root: str, file: str, extensions: tuple[str, ...]) -> bool:
    """Whether a file has one of the extensions, or is DICOM by its content."""
    if file.lower().endswith(extensions):
        return True
    try:
        return extensions == ALL_EXTENSIONS and has_preamble(os.path.join(root, file))
    except OSError:
        return False


def patient_folders(files: Iterable[str]) -> dict[str, str]:
    """Returns folder -> a digest of its path, for folders that look like one patient's."""
    counts = Counter(os.path.dirname(file) for file in files)
    inner = {folder: count for folder, count in counts.items() if folder and folder.lower() not in SPLITS}
    small = [folder for folder, count in inner.items() if count <= MAX_PATIENT_FILES]
    return (
        {folder: f"d{_path_digest(folder)}" for folder in small} if len(small) >= MIN_PATIENT_FOLDERS else {}
    )


def list_file(
    root: str,
    file: str,
    size: int | None,
    source: str,
    without_scans: dict[str, str] | None = None,
    links: Links = "inside",
) -> list[Scan]:
    """Lists the B-scans of one device file.

    A valid file without B-scans is added to `without_scans` with the reason. If `without_scans` is None, it
    counts as a file that cannot be read.
    """
    digest = _path_digest(file)
    extension = _extension(file)
    folders = file.split("/")[:-1]
    split = SPLITS.get(folders[0].lower()) if folders else None
    fields: dict[str, Any] = {"source": source, "size": size, "split": split}
    try:
        volumes = cached_volumes(root, file, links)
    except (DataError, OSError) as error:
        reason = str(error) if isinstance(error, DataError) else error.strerror or "cannot be read"
        if isinstance(error, FileWithoutScans) and without_scans is not None:
            without_scans[file] = reason
            return []
        read, name = partial(_refuse, reason, file), f"v{digest}"
        return [Scan(key=name, origin=f"{name}{extension}", read=read, volume=name, **fields)]
    return [
        Scan(
            key=f"v{digest}_{number}_{place:04d}",
            origin=f"v{digest}{extension} volume {number} slice {place}",
            read=partial(read_cached_slice, root, file, number, place, links),
            patient=volume.patient,
            eye=volume.eye,
            volume=f"v{digest}_{number}",
            group=f"v{digest}" if len(volumes) > 1 else None,
            slice=place,
            **fields,
        )
        for number, volume in enumerate(volumes)
        for place in range(len(volume.slices))
    ]


def _path_digest(file: str) -> str:
    return hashlib.sha256(os.fsencode(file)).hexdigest()[:8]


def _extension(file: str) -> str:
    """Returns the extension for messages: `.dcm` for DICOM, whose own may be part of a person's name."""
    extension = os.path.splitext(file)[1].lower()
    return extension if extension in ALL_EXTENSIONS else ".dcm"


def _companion_paths(file: str, volumes: Sequence[Volume]) -> set[str]:
    """Returns the paths of other files that belong to an export."""
    folder = os.path.dirname(file)
    names = (name for volume in volumes for name in volume.companions)
    return {os.path.normpath(os.path.join(folder, name)) for name in names}


def _settings_note(settings_counts: Mapping[tuple[str, ...], int]) -> Iterator[str]:
    """Yields one line on windows and rescales in DICOM files."""
    files = sum(count for kinds, count in settings_counts.items() if kinds)
    count_of_kind = Counter[str]()
    for kinds, count in settings_counts.items():
        count_of_kind.update(dict.fromkeys(kinds, count))
    if files:
        kinds_text = ", ".join(f"{kind} {count:,}" for kind, count in sorted(count_of_kind.items()))
        text = f"not applied: window or rescale of {_files_text(files)} ({kinds_text})"
        yield f"{text}; docs/device_files.md says why"


def _files_text(count: int) -> str:
    return f"{count:,} file" + ("" if count == 1 else "s")


def _count_notes(
    files: Collection[str], without_scans: Collection[str], scans: Sequence[Scan]
) -> Iterator[str]:
    read = {scan.volume for scan in scans if scan.slice is not None}
    bad = len({scan.volume for scan in scans if scan.slice is None})
    yield f"{len(files) - len(without_scans):,} files, {len(read) + bad:,} volumes"
    if bad:
        yield f"{bad:,} files cannot be read"


def _ignored_notes(without_scans: Mapping[str, str]) -> Iterator[str]:
    """Yields one line per reason, with the digests of the first files."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for file, reason in sorted(without_scans.items()):
        by_reason[reason].append(f"v{_path_digest(file)}{_extension(file)}")
    for reason, names in sorted(by_reason.items()):
        more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
        listed, short_reason = ", ".join(names[:MAX_NAMES]), reason.removeprefix("is ")
        yield f"ignored: {_files_text(len(names))}: {short_reason} ({listed}{more})"


def _others_note(files: Sequence[str]) -> Iterator[str]:
    """Yields one line on files that are not device files. It shows only common extensions."""
    counts = Counter(os.path.splitext(file)[1].lower() for file in files)
    common = {extension: count for extension, count in counts.most_common() if extension in COMMON_EXTENSIONS}
    rest = len(files) - sum(common.values())
    parts = [f"{count:,} {extension}" for extension, count in common.items()] + (
        [f"{rest:,} others"] if rest else []
    )
    if parts:
        yield f"passed over: {_files_text(len(files))}, not of a device: {', '.join(parts)}"


def read_cached_slice(root: str, file: str, number: int, place: int, links: Links = "inside") -> Pixels:
    """Returns one B-scan, from the cached volumes of this process; DataError if the file has changed."""
    try:
        return cached_volumes(root, file, links)[number].slices[place]
    except IndexError:
        raise DataError("is not in its file any more: the file has changed") from None


def cached_volumes(root: str, file: str, links: Links = "inside") -> list[Volume]:
    """Returns the volumes of a regular file below `root`, from the cache if they are there."""
    real = os.path.realpath(os.path.join(root, file))
    if (links == "inside" and not is_below(root, real)) or not os.path.isfile(real):
        raise DataError("is not a regular file in its folder (links out of it are not followed)")
    info = os.stat(real)
    # With time and size, because a file that was replaced while packing must not give the old pixels.
    key = (real, info.st_mtime, info.st_size)
    if key not in _volume_cache:
        _volume_cache[key] = read_volumes(real)
        # The newest volume stays, because its slices are read next.
        while len(_volume_cache) > 1 and sum(map(_bytes, _volume_cache.values())) > CACHE_BYTES:
            _volume_cache.popitem(last=False)
    _volume_cache.move_to_end(key)
    return _volume_cache[key]


def _bytes(volumes: list[Volume]) -> int:
    return sum(scan.nbytes for volume in volumes for scan in volume.slices)


def _refuse(reason: str, file: str) -> Pixels:
    """Raises the reason. `file` is only for the table of names (shards.people.pseudonyms.path_of)."""
    raise DataError(reason)
