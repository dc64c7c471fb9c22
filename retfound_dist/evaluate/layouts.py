"""What a labelled set lists, without decoding anything: four layouts, one list of items.

    <class>/**.jpg                    class folders; split by us
    train|val|test/<class>/**.jpg     OCTID as it is downloaded; its split is kept
    labels.csv                        columns file, label[, patient, split]; images wherever it says
    a shard set with labels           KEY.jpg|.png + KEY.json with label, patient, split
    Set/...                           class folders or parts one or more levels down (folder_layout)

A `manifest.csv` beside the folders (the same columns) is the list then: an image that it does not name is
kept out, for its patient is unknown.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from retfound_dist import shardset, storage
from retfound_dist.errors import DataError, ManifestError
from retfound_dist.folder_layout import layout_of, notes_of, nothing_found
from retfound_dist.folder_walk import Links
from retfound_dist.image_files import find_files, read_file
from retfound_dist.shardset import SPLITS

LISTING = "manifest.csv"
PARTS = ("train", "val", "test")
FOLLOW = "data.follow_links=anywhere"
"""How a user allows links that lead out of the folder."""
_KINDS = "a folder of class folders, a CSV of file,label[,patient,split], or labelled shards"


@dataclass(frozen=True)
class Item:
    """One labelled image that can be read."""

    key: str
    """Unique in the set: the path below the folder, or the sample's key."""
    label: str
    read: Callable[[], bytes]
    """The image file's bytes; OSError or StorageError where they cannot be had."""
    patient: str | None = None
    split: str | None = None
    """`train`, `val` or `test` where the set brings a split."""
    identity: str = ""
    """Changes when the image does: its size in bytes, or its shard's sha256."""


@dataclass(frozen=True)
class Listing:
    """What stands at a path or URL."""

    items: tuple[Item, ...]
    skipped: tuple[tuple[str, str], ...] = field(default=())
    """(key, reason) of images that are there and cannot be used."""
    notes: tuple[str, ...] = ()
    """What was passed over because it is no image by name, and how folders were read."""


def list_items(url: str, name: str = "data.path", links: Links = "inside") -> Listing:
    """Every labelled image of a folder or shard set, sorted by key; DataError (by the setting's name) where
    there is none."""
    if storage.exists(storage.join(url, shardset.MANIFEST)):
        return _list_shards(url)
    if not storage.is_local(url):
        raise DataError(
            f"{name}={url} holds no {shardset.MANIFEST}: give a labelled shard set or a local folder"
        )
    root = Path(storage.local_path(url))
    if not root.exists():
        raise DataError(f"{name}={url} does not exist: give {_KINDS}")
    if root.is_file():
        if root.suffix.lower() != ".csv":
            raise DataError(f"{name}={url} is a file, and no .csv: give {_KINDS}")
        found = _list_csv(root)
    else:
        found = _list_folder(root, name, url, links)
    if not found.items:
        raise DataError(
            f"no labelled images in {name}={url}: it must hold <class>/*.jpg, "
            "train|val|test/<class>/*.jpg, or labelled shards, or be a CSV that names images"
        )
    return found


def _list_folder(root: Path, name: str, url: str, links: Links) -> Listing:
    files = find_files(str(root), links=links, used=(LISTING,))
    layout = layout_of(files, name, url)
    items, skipped = [], []
    for file, size in zip(files.paths, files.sizes, strict=True):
        split, label = layout.part_and_class(os.path.dirname(file))
        key = layout.own(file)
        if label is None:
            skipped.append((key, "lies in no class folder"))
            continue
        read = partial(read_file, files.root, file, links)
        items.append(Item(key, label, read, split=split, identity=str(size)))
    found = Listing(tuple(items), tuple(skipped), notes_of(files, layout, FOLLOW))
    if (root / LISTING).is_file():
        return _apply_listing(found, root, links, layout.inside)
    if layout.inside and (root / layout.inside / LISTING).is_file():
        return _apply_listing(found, root / layout.inside, links)
    if not items and not skipped:
        raise DataError(
            f"no labelled images in {name}={url}: it must hold <class>/*.jpg or train|val|test/<class>/*.jpg"
            + nothing_found(files, FOLLOW)
        )
    return found


def _apply_listing(found: Listing, root: Path, links: Links, inside: str = "") -> Listing:
    """The images as the listing says; `inside`: where the set begins below the listing's own folder."""
    rows = _read_listing(root / LISTING)
    if inside:
        rows = {file.removeprefix(f"{inside}/"): row for file, row in rows.items()}
    files = {item.key: item for item in found.items}
    items = []
    for file, row in rows.items():
        item = files.get(file) or _item(root / inside, file, file.split("/")[0], links)
        items.append(_as_listed(item, row, root / LISTING))
    unlisted = (
        (key, f"is not listed in the {LISTING} beside it") for key in sorted(files.keys() - rows.keys())
    )
    listed_loose = tuple((key, why) for key, why in found.skipped if key not in rows)
    skipped = (*listed_loose, *unlisted)
    return Listing(tuple(sorted(items, key=lambda item: item.key)), skipped, found.notes)


def _list_csv(path: Path) -> Listing:
    """The images that a CSV names, by paths from its own folder or absolute ones."""
    rows = _read_listing(path)
    items = [_as_listed(_item(path.parent, file, "", "anywhere"), row, path) for file, row in rows.items()]
    unlabelled = tuple((item.key, f"has no label in {path.name}") for item in items if not item.label)
    return Listing(
        tuple(sorted((item for item in items if item.label), key=lambda item: item.key)), unlabelled
    )


def _item(root: Path, file: str, label: str, links: Links) -> Item:
    path = root / file
    size = str(path.stat().st_size) if path.exists() else "gone"
    read = partial(read_file, os.path.realpath(root), file, links)
    return Item(file, label, read, identity=size)


def _as_listed(item: Item, row: dict[str, str], listing: Path) -> Item:
    return replace(
        item,
        label=row.get("label") or item.label,
        patient=row.get("patient") or None,
        split=_split_name(row.get("split"), item.key, listing) or item.split,
    )


def _read_listing(path: Path) -> dict[str, dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            if "file" not in columns or "label" not in columns:
                raise DataError(
                    f"{path} has columns {', '.join(columns) or 'none'}: "
                    "its header must be file,label[,patient,split]"
                )
            rows = {}
            for row in reader:
                file = os.path.normpath(row["file"].strip()).replace(os.sep, "/")
                if file in rows:
                    raise DataError(
                        f"{path} line {reader.line_num}: {file} is listed twice; keep one line a file"
                    )
                rows[file] = {k: (v or "").strip() for k, v in row.items() if isinstance(k, str)}
            return rows
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a UTF-8 CSV file ({error}): save it as one, or remove it") from error


def _split_name(text: str | None, file: str, listing: Path) -> str | None:
    if not text:
        return None
    if text.lower() not in SPLITS:
        raise DataError(
            f"{listing}: split {text!r} of {file} is not train, val or test; "
            "correct it or leave it empty"
        )
    return SPLITS[text.lower()]


def list_samples(url: str) -> Iterator[Item]:
    """Every sample of a shard set, by key; one without a label has an empty one."""
    found = []
    for shard in shardset.read_manifest(url).shards:
        data = memoryview(read_shard(url, shard))
        for entry in shardset.read_index(url, shard):
            note = json.loads(bytes(data[entry.json_offset : entry.json_offset + entry.json_bytes]))
            label = "" if note.get("label") is None else str(note["label"])
            image = data[entry.image_offset : entry.image_offset + entry.image_bytes]
            split = note.get("split") or shard.split
            found.append(
                Item(entry.key, label, partial(bytes, image), note.get("patient"), split, shard.sha256)
            )
    yield from sorted(found, key=lambda item: item.key)


def _list_shards(url: str) -> Listing:
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
    return Listing(tuple(items), tuple(skipped))


def read_shard(url: str, shard: shardset.Shard) -> bytes:
    """A shard's bytes; ManifestError where they are not those of the manifest."""
    where = storage.join(url, shard.name)
    data = storage.read_bytes(where)
    if storage.bytes_info(data).sha256 != shard.sha256:
        raise ManifestError(f"{where} differs from the manifest's sha256: fetch or pack this shard again")
    return data
