"""Finds out what kind of images `retfound predict` is given, and lists them without decoding.

a folder                image files, device files, or both (folder_inputs.py)
files                   image files and device files
.csv .tsv .xlsx         a list of image files
a shard set             its samples, in their order; local or on S3
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from retfound_dist.errors import ConfigError, DataError
from retfound_dist.files.folder_walk import Links
from retfound_dist.formats import shard_set
from retfound_dist.io import storage
from retfound_dist.listing.image_lists import LISTINGS, read_listing
from retfound_dist.listing.slice_sequences import SliceSequences
from retfound_dist.prediction.folder_inputs import device_input, list_folder_inputs, listed_image
from retfound_dist.prediction.input_images import (
    InputImage,
    InputListing,
    ShardSample,
    check_keys,
    with_known_patients,
)
from shards.sources.devices.device import list_file
from shards.sources.devices.volume_formats import experimental_notes, kind_of
from shards.sources.folders.folder import FileReader

ACCEPTED = (
    "a folder of images or device files, image or device files, a list (.csv, .tsv, .xlsx) or a shard set"
)
MAX_NAMED_FILES = 10
"""Device files whose digests a note explains."""


def list_inputs(
    sources: Sequence[str], links: Links = "inside", on_progress: Callable[[int, int], None] | None = None
) -> InputListing:
    """Every image of the sources, in a fixed order. DataError or ConfigError where there is none.

    `sources`: paths and URLs. Several are allowed only where all are files. `on_progress`: called with the
    number of device files that are listed and of all.
    """
    shown = sources[0] if len(sources) == 1 else f"{sources[0]} and {len(sources) - 1:,} more"
    if len(sources) == 1 and (listing := _list_collection(sources[0], links, on_progress)):
        return check_keys(listing, shown)
    for source in sources:
        _check_file(source)
    return check_keys(_list_files(sources, on_progress), shown)


def _list_collection(
    source: str, links: Links, on_progress: Callable[[int, int], None] | None
) -> InputListing | None:
    """The images of a shard set, a folder or a list; None for another file."""
    if storage.exists(storage.join(source, shard_set.MANIFEST)):
        return _list_shards(source)
    if not storage.is_local(source):
        raise DataError(f"{source} has no {shard_set.MANIFEST}: give a shard set, or local images")
    path = storage.local_path(source)
    if not os.path.exists(path):
        raise DataError(f"{source} does not exist: give {ACCEPTED}")
    if os.path.isdir(path):
        return list_folder_inputs(source, links, on_progress)
    return _list_table(path) if path.lower().endswith(LISTINGS) else None


def _check_file(source: str) -> None:
    if storage.is_local(source):
        path = storage.local_path(source)
        if not os.path.exists(path):
            raise DataError(f"{source} does not exist: give {ACCEPTED}")
        if not os.path.isdir(path) and not path.lower().endswith(LISTINGS):
            return
    raise ConfigError(
        f"{source} is not a single image or device file: give it alone, "
        "and predict other images with another command"
    )


def _list_files(sources: Sequence[str], on_progress: Callable[[int, int], None] | None) -> InputListing:
    """Files that are named one by one. The key of an image file is its path as it was given."""
    images: list[InputImage] = []
    notes: list[str] = []
    formats: set[str] = set()
    for number, source in enumerate(sources):
        if on_progress:
            on_progress(number, len(sources))
        path = os.path.normpath(storage.local_path(source))
        try:
            kind = kind_of(path)
        except OSError:
            kind = None  # it becomes an image that cannot be read, with the reason
        if kind is None:
            images.append(InputImage(path, FileReader("", path, "anywhere")))
            continue
        formats.add(kind)
        scans = list_file("", path, None, "device", links="anywhere")
        notes.append(f"{scans[0].origin.split()[0]} is {source}")
        images += map(device_input, scans)
    unnamed = len(notes) - MAX_NAMED_FILES
    notes = [*notes[:MAX_NAMED_FILES], *([f"and {unnamed:,} more device files"] if unnamed > 0 else [])]
    return InputListing(images, (*notes, *experimental_notes(formats)))


def _list_table(path: str) -> InputListing:
    """The images that a list names. Their paths are absolute, or relative to the folder of the list."""
    listed = read_listing(path)
    root, sequences = os.path.realpath(os.path.dirname(path)), SliceSequences(listed.rows)
    # A list that the user names may name files anywhere, as in `retfound evaluate`.
    rows = [
        listed_image(FileReader(root, file, "anywhere"), file, row, sequences.place_of(file))
        for file, row in listed.rows.items()
    ]
    missing = [file for file in listed.rows if not os.path.exists(os.path.join(root, file))]
    images, patient_notes = with_known_patients(rows)
    labels = sorted({row.label for row in listed.rows.values() if row.label})
    return InputListing(images, (*listed.notes, *listed.missing_note(missing), *patient_notes), tuple(labels))


def _list_shards(url: str) -> InputListing:
    """The samples of a shard set, from its indexes."""
    manifest = shard_set.read_manifest(url)
    several = len(manifest.sources) > 1
    images = [
        InputImage(entry.key, ShardSample(url, shard, entry, several), together=shard.name)
        for shard in manifest.shards
        for entry in shard_set.read_index(url, shard)
    ]
    return InputListing(images, labels=tuple(sorted(manifest.classes)))
