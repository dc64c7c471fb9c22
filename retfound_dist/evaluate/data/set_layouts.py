"""Lists the images of a labelled set without decoding them. Five layouts give one list of items:

    <class>/**.jpg                    class folders; split by us
    train|val|test/<class>/**.jpg     OCTID as it is downloaded; its split is kept
    labels.csv (.tsv, .xlsx)          retfound_dist/listing/image_lists.py reads it; images wherever it says
    a shard set with labels           KEY.jpg|.png + KEY.json with label, patient, split
    Set/...                           class folders or parts one or more levels down (folder_layout)

A `manifest.csv` beside the folders (the same columns) is the list then: an image that it does not name is
left out, for its patient is unknown. Slices of one volume are recognised by their names
(retfound_dist/listing/slice_sequences.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from retfound_dist.errors import DataError, ManifestError
from retfound_dist.files.folder_walk import Links
from retfound_dist.files.image_files import find_files, read_file
from retfound_dist.formats import shard_set, shard_set_files
from retfound_dist.images import image_digests
from retfound_dist.io import storage
from retfound_dist.listing.folder_layout import layout_of, notes_of, nothing_found, part_of
from retfound_dist.listing.image_lists import (
    LISTINGS,
    ImageList,
    Row,
    find_listing,
    other_tables,
    read_listing,
)
from retfound_dist.listing.slice_sequences import Place, Sequences
from retfound_dist.listing.split_units import patients_of_units
from retfound_dist.records import json_reader

PARTS = ("train", "val", "test")
FOLLOW = "data.follow_links=anywhere"
"""How a user allows links that lead out of the folder."""
_KINDS = (
    "a folder of class folders, a list of file,label[,patient,split] (.csv, .tsv, .xlsx), or labelled shards"
)


@dataclass(frozen=True)
class LabelledImage:
    """One labelled image that can be read."""

    key: str
    """Unique in the set: the path below the folder, or the sample's key."""
    label: str
    read: Callable[[], bytes]
    """The image file's bytes; OSError or StorageError where they cannot be had."""
    patient: str | None = None
    volume: str | None = None
    """Its slices stay together where the patient is not known."""
    group: str | None = None
    """Folder or file that may hold several volumes of one person, kept together in the same way."""
    split: str | None = None
    """`train`, `val` or `test` where the set brings a split."""
    identity: str = ""
    """Of a shard's sample: the digest that its index has of the image's bytes."""
    digests: tuple[int, ...] = ()
    """Digests of the sample's source, from the shard's index (`retfound_dist.images.image_digests`)."""


@dataclass(frozen=True)
class SetListing:
    """The images found at a path or URL."""

    items: tuple[LabelledImage, ...]
    skipped: tuple[tuple[str, str], ...] = field(default=())
    """(key, reason) of images that are there and cannot be used."""
    notes: tuple[str, ...] = ()
    """Files that are not images by their names, and how folders and lists were read."""
    columns: str = ""
    """Which columns of a list were read: `manifest.csv: file <- 'Filename', ...; not used: 'age'`."""


def list_items(url: str, name: str = "data.path", links: Links = "inside") -> SetListing:
    """Every labelled image of a folder or shard set, sorted by key; DataError (by the setting's name) where
    there is none."""
    if storage.exists(storage.join(url, shard_set.MANIFEST)):
        return _list_shards(url)
    if not storage.is_local(url):
        raise DataError(
            f"{name}={url} holds no {shard_set.MANIFEST}: give a labelled shard set or a local folder"
        )
    root = Path(storage.local_path(url))
    if not root.exists():
        raise DataError(f"{name}={url} does not exist: give {_KINDS}")
    if root.is_file():
        if root.suffix.lower() not in LISTINGS:
            raise DataError(f"{name}={url} is a file, and no {', '.join(LISTINGS)}: give {_KINDS}")
        listing = _list_csv(root)
    else:
        listing = _list_folder(root, name, url, links)
    listing = _with_patients(listing)
    if not listing.items:
        raise DataError(
            f"no labelled images in {name}={url}: it must hold <class>/*.jpg, "
            "train|val|test/<class>/*.jpg, or labelled shards, or be a CSV that names images"
        )
    return listing


def _with_patients(listing: SetListing) -> SetListing:
    """Gives every slice its volume's patient, where only some slices name one."""
    owners = patients_of_units((item.group or item.volume, item.patient) for item in listing.items)
    items = tuple(
        replace(item, patient=owners.get(item.group or item.volume or "")) if item.patient is None else item
        for item in listing.items
    )
    more = sum(a.patient is not b.patient for a, b in zip(items, listing.items, strict=True))
    note = f"the patient of {more:,} images is taken from other slices of their volume"
    return replace(listing, items=items, notes=(*listing.notes, note)) if more else listing


def _list_folder(root: Path, name: str, url: str, links: Links) -> SetListing:
    where = find_listing(str(root))
    files = find_files(str(root), links=links, used=(os.path.basename(where),) if where else ())
    layout = layout_of(files, name, url)
    items, skipped = [], []
    sequences = Sequences([layout.own(file) for file in files.paths])
    for file in files.paths:
        split, label = layout.part_and_class(os.path.dirname(file))
        key = layout.own(file)
        if label is None:
            skipped.append((key, "lies in no class folder"))
            continue
        read = partial(read_file, files.root, file, links)
        place = sequences.of(key)
        items.append(LabelledImage(key, label, read, None, place.volume, place.group, split))
    listing = SetListing(tuple(items), tuple(skipped), notes_of(files, layout, FOLLOW))
    if where is None and layout.inside:
        where = find_listing(str(root / layout.inside))
    if where is not None:
        inside = "" if Path(where).parent != root else layout.inside
        return _apply_listing(listing, Path(where).parent, read_listing(where), links, inside)
    if not items and not skipped:
        raise DataError(
            f"no labelled images in {name}={url}: it must hold <class>/*.jpg or train|val|test/<class>/*.jpg"
            + nothing_found(files, FOLLOW)
        )
    return replace(listing, notes=(*other_tables(str(root)), *listing.notes))


def _apply_listing(
    in_folders: SetListing, root: Path, listed: ImageList, links: Links, inside: str = ""
) -> SetListing:
    """The images as the listing says; `inside`: where the set begins below the listing's own folder."""
    rows = listed.rows
    if inside:
        rows = {file.removeprefix(f"{inside}/"): row for file, row in rows.items()}
    files, sequences = {item.key: item for item in in_folders.items}, Sequences(rows)
    items = []
    for file, row in rows.items():
        item = files.get(file) or _item(root / inside, file, _class_of(file), links, sequences.of(file))
        items.append(_as_listed(item, row))
    loose = tuple((item.key, "has no label and lies in no class folder") for item in items if not item.label)
    unlisted = (
        (key, f"is not listed in the {listed.name} beside it") for key in sorted(files.keys() - rows.keys())
    )
    listed_loose = tuple((key, why) for key, why in in_folders.skipped if key not in rows)
    return SetListing(
        tuple(sorted((item for item in items if item.label), key=lambda item: item.key)),
        (*listed_loose, *unlisted, *loose),
        (*listed.notes[1:], *listed.missing_note(_missing(root / inside, items)), *in_folders.notes),
        listed.said,
    )


def _list_csv(path: Path) -> SetListing:
    """The images that a list names, by paths from its own folder or absolute ones."""
    listed = read_listing(str(path), ("file", "label"))
    sequences = Sequences(listed.rows)
    items = [
        # Who names the list itself may name files anywhere. A list that merely lies in a folder may not: it
        # may have come with a download, and could point at any file of this machine.
        _as_listed(_item(path.parent, file, "", "anywhere", sequences.of(file)), row)
        for file, row in listed.rows.items()
    ]
    unlabelled = tuple((item.key, f"has no label in {path.name}") for item in items if not item.label)
    labelled = sorted((item for item in items if item.label), key=lambda item: item.key)
    notes = (*listed.notes[1:], *listed.missing_note(_missing(path.parent, items)))
    return SetListing(tuple(labelled), unlabelled, notes, listed.said)


def _class_of(file: str) -> str:
    folders = file.split("/")[:-1]
    folders = folders[1:] if folders and part_of(folders[0]) else folders
    return folders[0] if folders else ""


def _missing(root: Path, items: Sequence[LabelledImage]) -> list[str]:
    return [item.key for item in items if not (root / item.key).exists()]


def _item(root: Path, file: str, label: str, links: Links, place: Place) -> LabelledImage:
    read = partial(read_file, os.path.realpath(root), file, links)
    return LabelledImage(file, label, read, None, place.volume, place.group)


def _as_listed(item: LabelledImage, row: Row) -> LabelledImage:
    if row.volume is not None:
        item = replace(item, volume=row.volume, group=None)
    return replace(item, label=row.label or item.label, patient=row.patient, split=row.split or item.split)


def list_samples(url: str) -> Iterator[LabelledImage]:
    """Every sample of a shard set, by key; one without a label has an empty one.

    Of a set of several sources patients and volumes are told apart by their source, as in packing.
    """
    items = []
    manifest = shard_set.read_manifest(url)
    several = len(manifest.sources) > 1
    # The digests of all shards in one list: shards and samples below come in the same order.
    known = iter(image_digests.set_digests(manifest).digests.tolist())
    for shard in manifest.shards:
        data = memoryview(read_shard(url, shard))
        for entry in shard_set.read_index(url, shard):
            note = json_reader.parse(
                bytes(data[entry.json_offset : entry.json_offset + entry.json_bytes]),
                shard_set_files.SampleFields,
                f"{entry.key}.json of {storage.join(url, shard.name)}",
                "pack the set again",
            )
            label = "" if note.get("label") is None else str(note["label"])
            image = data[entry.image_offset : entry.image_offset + entry.image_bytes]
            split = note.get("split") or shard.split
            patient, volume, group = (_named(note, name, several) for name in ("patient", "volume", "group"))
            # `image` is a view into the shard: its bytes are copied only when they are asked for. A digest of
            # 0 means that the index has none.
            read, sources = partial(bytes, image), tuple(digest for digest in next(known) if digest)
            content = entry.image_sha256
            items.append(
                LabelledImage(entry.key, label, read, patient, volume, group, split, content, sources)
            )
    yield from sorted(items, key=lambda item: item.key)


def _named(note: Mapping[str, Any], field_name: str, several: bool) -> str | None:
    name = note.get(field_name)
    return name if name is None or not several else f"{note.get('source')}/{name}"


def _list_shards(url: str) -> SetListing:
    items, skipped = [], []
    for item in list_samples(url):
        if item.label:
            items.append(item)
        else:
            skipped.append((item.key, "has no label"))
    if not items:
        raise DataError(
            f"the {len(skipped)} samples of {url} bear no label: "
            "pack a set of class folders and evaluate on that"
        )
    return SetListing(tuple(items), tuple(skipped))


def read_shard(url: str, shard: shard_set.Shard) -> bytes:
    """A shard's bytes; ManifestError where they are not those of the manifest."""
    where = storage.join(url, shard.name)
    data = storage.read_bytes(where)
    # The whole tar has been read anyway; its own format would not notice a changed byte in an image.
    if storage.bytes_info(data).sha256 != shard.sha256:
        raise ManifestError(f"{where} differs from the manifest's sha256: fetch or pack this shard again")
    return data
