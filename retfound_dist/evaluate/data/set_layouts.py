"""Lists the images of a labelled set without decoding them. It reads five layouts:

    <class>/**.jpg                    class folders; evaluation splits them
    train|val|test/<class>/**.jpg     as OCTID is downloaded; this split is used
    labels.csv (.tsv, .xlsx)          a list, see retfound_dist/listing/image_lists.py
    a shard set with labels           KEY.jpg|.png + KEY.json with label, patient, split
    Set/...                           class folders or parts one or more levels down (folder_layout)

A `manifest.csv` with the same columns beside the folders is used as the list. An image that it does not name
is left out, because its patient is unknown. Slices of one volume are recognized by their names
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
from retfound_dist.listing.folder_layout import layout_notes, layout_of, part_of, passed_files_clause
from retfound_dist.listing.image_lists import (
    LISTINGS,
    ImageList,
    Row,
    find_listing,
    is_known,
    read_listing,
    unread_tables_note,
)
from retfound_dist.listing.slice_sequences import SlicePlace, SliceSequences
from retfound_dist.listing.split_units import patients_of_units
from retfound_dist.records import json_reader

PARTS = ("train", "val", "test")
FOLLOW_LINKS = "data.follow_links=anywhere"
"""The setting that allows links that lead out of the folder."""
_ACCEPTED_SETS = (
    "a folder of class folders, a list of file,label[,patient,split] (.csv, .tsv, .xlsx), or labelled shards"
)


@dataclass(frozen=True)
class LabelledImage:
    """One labelled image that can be read."""

    key: str
    """Unique in the set: the path below the folder, or the sample's key."""
    label: str
    read: Callable[[], bytes]
    """The image file's bytes; OSError or StorageError where they cannot be read."""
    patient: str | None = None
    volume: str | None = None
    """Slices of one volume stay in one part where the patient is not known."""
    group: str | None = None
    """A folder or file that may hold several volumes of one patient. It stays in one part in the same way."""
    split: str | None = None
    """`train`, `val` or `test` where the set has its own split."""
    identity: str = ""
    """For a sample of a shard: the sha256 of its image, from the index of the shard."""
    digests: tuple[int, ...] = ()
    """Digests of the source of a sample, from the index (`retfound_dist.images.image_digests`)."""
    eye: str | None = None
    """`L` or `R`."""
    slice: int | None = None
    """The place in its volume."""
    columns: Mapping[str, str | None] = field(default_factory=dict)
    """Cells of the columns that were requested, by their names."""


@dataclass(frozen=True)
class SetListing:
    """The images found at a path or URL."""

    items: tuple[LabelledImage, ...]
    skipped: tuple[tuple[str, str], ...] = field(default=())
    """(key, reason) of images that cannot be used."""
    notes: tuple[str, ...] = ()
    """Which files are not images by their names, and how folders and lists were read."""
    columns: str = ""
    """Which columns of the list were read: `manifest.csv: file <- 'Filename', ...; not used: 'age'`."""


def list_labelled_images(
    url: str,
    name: str = "data.path",
    links: Links = "inside",
    columns: Sequence[str] = (),
    needs_label: bool = True,
) -> SetListing:
    """Every labelled image of a folder, list or shard set, sorted by key; DataError where there is none.

    `name`: the setting that has the URL, for errors. `columns`: columns of the list, or fields of the
    samples, that `LabelledImage.columns` must have. Without `needs_label` images without a label are listed
    too; their label is empty.
    """
    if storage.exists(storage.join(url, shard_set.MANIFEST)):
        return _list_shards(url, columns, needs_label)
    if not storage.is_local(url):
        raise DataError(
            f"{name}={url} has no {shard_set.MANIFEST}: give a labelled shard set or a local folder"
        )
    root = Path(storage.local_path(url))
    if not root.exists():
        raise DataError(f"{name}={url} does not exist: give {_ACCEPTED_SETS}")
    if root.is_file():
        if root.suffix.lower() not in LISTINGS:
            raise DataError(f"{name}={url} is a file, but not a {', '.join(LISTINGS)}: give {_ACCEPTED_SETS}")
        listing = _list_csv(root, columns, needs_label)
    else:
        listing = _list_folder(root, name, url, links, columns, needs_label)
    listing = _with_patients(listing)
    if not listing.items:
        raise DataError(
            f"no labelled images in {name}={url}: it must hold <class>/*.jpg, "
            "train|val|test/<class>/*.jpg, or labelled shards, or be a CSV that names images"
        )
    return listing


def _with_patients(listing: SetListing) -> SetListing:
    """Sets the patient of each slice that names none, where other slices of its volume name one."""
    owners = patients_of_units((item.group or item.volume, item.patient) for item in listing.items)
    items = tuple(
        replace(item, patient=owners.get(item.group or item.volume or "")) if item.patient is None else item
        for item in listing.items
    )
    changed = sum(new.patient is not old.patient for new, old in zip(items, listing.items, strict=True))
    note = f"the patient of {changed:,} images is taken from other slices of their volume"
    return replace(listing, items=items, notes=(*listing.notes, note)) if changed else listing


def _list_folder(
    root: Path, name: str, url: str, links: Links, columns: Sequence[str] = (), needs_label: bool = True
) -> SetListing:
    """The labelled images of a folder: by its class folders, or by a list in it."""
    list_path = find_listing(str(root))
    files = find_files(str(root), links=links, used=(os.path.basename(list_path),) if list_path else ())
    layout = layout_of(files, name, url)
    items, skipped = [], []
    sequences = SliceSequences([layout.relative_path(file) for file in files.paths])
    for file in files.paths:
        split, label = layout.part_and_class(os.path.dirname(file))
        key = layout.relative_path(file)
        if label is None and needs_label:
            skipped.append((key, "is not in a class folder"))
            continue
        read = partial(read_file, files.root, file, links)
        place = sequences.place_of(key)
        items.append(
            LabelledImage(key, label or "", read, None, place.volume, place.group, split, slice=place.slice)
        )
    listing = SetListing(tuple(items), tuple(skipped), layout_notes(files, layout, FOLLOW_LINKS))
    if list_path is None and layout.set_folder:
        list_path = find_listing(str(root / layout.set_folder))
    if list_path is not None:
        list_folder = Path(list_path).parent
        inside = layout.set_folder if list_folder == root else ""
        listed = read_listing(list_path, requested=columns)
        return _apply_listing(listing, list_folder, listed, links, inside, columns, needs_label)
    if columns:
        raise DataError(
            f"{name}={url} has no list, so it has no column {columns[0]!r}: give a list of the images "
            f"({', '.join(LISTINGS)}), or put one named manifest.csv into the folder"
        )
    if not items and not skipped:
        raise DataError(
            f"no labelled images in {name}={url}: it must hold <class>/*.jpg or train|val|test/<class>/*.jpg"
            + passed_files_clause(files, FOLLOW_LINKS)
        )
    return replace(listing, notes=(*unread_tables_note(str(root)), *listing.notes))


def _apply_listing(
    in_folders: SetListing,
    root: Path,
    listed: ImageList,
    links: Links,
    inside: str = "",
    columns: Sequence[str] = (),
    needs_label: bool = True,
) -> SetListing:
    """The images with the labels and patients of the list; `inside`: folder of the set below the list's."""
    rows = listed.rows
    if inside:
        rows = {file.removeprefix(f"{inside}/"): row for file, row in rows.items()}
    files, sequences = {item.key: item for item in in_folders.items}, SliceSequences(rows)
    items = []
    for file, row in rows.items():
        item = files.get(file) or _item(root / inside, file, _class_of(file), links, sequences.place_of(file))
        items.append(_apply_row(item, row, columns))
    unlabelled = tuple(
        (item.key, "has no label and is not in a class folder")
        for item in items
        if needs_label and not item.label
    )
    unlisted = (
        (key, f"is not listed in the {listed.name} beside it") for key in sorted(files.keys() - rows.keys())
    )
    skipped_unlisted = tuple((key, reason) for key, reason in in_folders.skipped if key not in rows)
    return SetListing(
        tuple(sorted((i for i in items if i.label or not needs_label), key=lambda item: item.key)),
        (*skipped_unlisted, *unlisted, *unlabelled),
        (*listed.notes[1:], *listed.missing_note(_missing(root / inside, items)), *in_folders.notes),
        listed.summary,
    )


def _list_csv(path: Path, columns: Sequence[str] = (), needs_label: bool = True) -> SetListing:
    """The images that a list names. Their paths are absolute, or relative to the folder of the list."""
    listed = read_listing(str(path), ("file", "label") if needs_label else ("file",), columns)
    sequences = SliceSequences(listed.rows)
    items = [
        # A list that the user names may name files anywhere. A list that lies in a folder of images may not:
        # it may come from a download, and could name any file of this machine.
        _apply_row(_item(path.parent, file, "", "anywhere", sequences.place_of(file)), row, columns)
        for file, row in listed.rows.items()
    ]
    unlabelled = tuple(
        (item.key, f"has no label in {path.name}") for item in items if needs_label and not item.label
    )
    labelled = sorted((i for i in items if i.label or not needs_label), key=lambda item: item.key)
    notes = (*listed.notes[1:], *listed.missing_note(_missing(path.parent, items)))
    return SetListing(tuple(labelled), unlabelled, notes, listed.summary)


def _class_of(file: str) -> str:
    folders = file.split("/")[:-1]
    folders = folders[1:] if folders and part_of(folders[0]) else folders
    return folders[0] if folders else ""


def _missing(root: Path, items: Sequence[LabelledImage]) -> list[str]:
    return [item.key for item in items if not (root / item.key).exists()]


def _item(root: Path, file: str, label: str, links: Links, place: SlicePlace) -> LabelledImage:
    read = partial(read_file, os.path.realpath(root), file, links)
    return LabelledImage(file, label, read, None, place.volume, place.group, slice=place.slice)


def _apply_row(item: LabelledImage, row: Row, columns: Sequence[str] = ()) -> LabelledImage:
    """The image with what its row of the list says; label, part and slice stay where the row has none."""
    if row.volume is not None:
        item = replace(item, volume=row.volume, group=None)
    return replace(
        item,
        label=row.label or item.label,
        patient=row.patient,
        split=row.split or item.split,
        eye=row.eye,
        slice=item.slice if row.slice is None else row.slice,
        columns=dict(zip(columns, row.requested, strict=True)),
    )


def list_samples(url: str, columns: Sequence[str] = ()) -> Iterator[LabelledImage]:
    """Every sample of a shard set, sorted by key. The label is empty where a sample has none.

    In a set with several sources, names of patients and volumes start with the source, as in packing.
    DataError where no sample has a field that `columns` names.
    """
    items: list[LabelledImage] = []
    field_names: set[str] = set()
    manifest = shard_set.read_manifest(url)
    several_sources = len(manifest.sources) > 1
    # One iterator for all shards: its order is that of the shards and samples below.
    sample_digests = iter(image_digests.set_digests(manifest).digests.tolist())
    for shard in manifest.shards:
        data = memoryview(read_shard(url, shard))
        for entry in shard_set.read_index(url, shard):
            fields = json_reader.parse(
                bytes(data[entry.json_offset : entry.json_offset + entry.json_bytes]),
                shard_set_files.SampleFields,
                f"{entry.key}.json of {storage.join(url, shard.name)}",
                "pack the set again",
            )
            field_names.update(fields)
            label = "" if fields.get("label") is None else str(fields["label"])
            image = data[entry.image_offset : entry.image_offset + entry.image_bytes]
            names = ("patient", "volume", "group")
            patient, volume, group = (name_with_source(fields, name, several_sources) for name in names)
            items.append(
                LabelledImage(
                    key=entry.key,
                    label=label,
                    # `image` is a view into the shard: its bytes are copied only when they are read.
                    read=partial(bytes, image),
                    patient=patient,
                    volume=volume,
                    group=group,
                    split=fields.get("split") or shard.split,
                    identity=entry.image_sha256,
                    # A digest of 0 means that the index has none.
                    digests=tuple(digest for digest in next(sample_digests) if digest),
                    eye=fields.get("eye"),
                    slice=fields.get("slice"),
                    columns={name: _field_text(fields, name) for name in columns},
                )
            )
    if missing := [name for name in columns if name not in field_names]:
        raise DataError(
            f"no sample of {url} has a field {missing[0]!r} (they have {', '.join(sorted(field_names))}): "
            "leave it out, or give a set whose samples have it"
        )
    yield from sorted(items, key=lambda item: item.key)


def name_with_source(fields: Mapping[str, Any], field_name: str, several_sources: bool) -> str | None:
    """The name of a sample's patient or volume; with its source before it where a set has several."""
    name = fields.get(field_name)
    return name if name is None or not several_sources else f"{fields.get('source')}/{name}"


def _field_text(fields: Mapping[str, Any], name: str) -> str | None:
    """A field of a sample as a cell of a list would hold it; None where it is not known."""
    value = fields.get(name)
    return str(value) if is_known(None if value is None else str(value)) else None


def _list_shards(url: str, columns: Sequence[str] = (), needs_label: bool = True) -> SetListing:
    """The labelled samples of a shard set; those without a label are skipped, DataError if all are."""
    items, skipped = [], []
    for item in list_samples(url, columns):
        if item.label or not needs_label:
            items.append(item)
        else:
            skipped.append((item.key, "has no label"))
    if not items:
        raise DataError(
            f"the {len(skipped)} samples of {url} have no label: "
            "pack a set of class folders and evaluate on it"
        )
    return SetListing(tuple(items), tuple(skipped))


def read_shard(url: str, shard: shard_set.Shard) -> bytes:
    """The bytes of a shard; ManifestError where their sha256 is not the one in the manifest."""
    where = storage.join(url, shard.name)
    data = storage.read_bytes(where)
    # Checked here, because the tar format does not notice a changed byte in an image.
    if storage.bytes_info(data).sha256 != shard.sha256:
        raise ManifestError(f"{where} differs from the manifest's sha256: fetch or pack this shard again")
    return data
