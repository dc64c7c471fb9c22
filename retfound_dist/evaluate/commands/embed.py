"""`retfound embed`: features of a folder of images or a shard set, as .npz or .parquet.

    retfound embed RUN images/ --out features.npz

Parts are kept beside the target while it is made, so a run that was ended goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.config.schema import EvalModel
from retfound_dist.errors import ConfigError, DataError, StorageError
from retfound_dist.evaluate.data import set_layouts
from retfound_dist.evaluate.data.gray_pixels import Pixels, decode_grey, resize_for_testing
from retfound_dist.evaluate.data.set_layouts import LabelledImage
from retfound_dist.evaluate.data.starting_weights import StartingWeights, open_starting_weights
from retfound_dist.evaluate.probe.frozen_features import (
    Features,
    compute_features,
    frozen_encoder,
    npz_bytes,
    read_npz,
)
from retfound_dist.files.folder_walk import Links
from retfound_dist.files.image_files import NAMED_ENDS, find_files, read_file
from retfound_dist.formats import shard_set
from retfound_dist.io import output_files, storage
from retfound_dist.io.scratch import temporary
from retfound_dist.listing.folder_layout import nothing_found
from retfound_dist.runtime.optional_packages import requires_extra
from retfound_dist.runtime.progress import ProgressDisplay, rate_text

_PART_NAME = re.compile(r"[0-9a-f]{32}\.npz")
PART = 512
"""Images of one part."""
KINDS = (".npz", ".parquet")
FOLLOW_LINKS = "--follow-links"
"""How a user allows links that lead out of the folder."""


@dataclass(frozen=True)
class Embedded:
    """Features of the images that could be read."""

    keys: list[str]
    features: Features
    """(N, D)"""
    skipped: list[str]
    """`key: reason` of the others."""


def embed_command(
    checkpoint: str,
    images: str,
    out: str,
    quiet: bool = False,
    links: Links = "inside",
    force: bool = False,
) -> int:
    """Write features and keys; raises RetfoundError for anything a person can mend."""
    if not out.endswith(KINDS):
        raise ConfigError(f"--out {out}: give a name that ends in {' or '.join(KINDS)}")
    # Before any image is read: hours of work must not end in a missing package.
    if out.endswith(".parquet"):
        _parquet()
    output_files.check_free(out, "embed", force)
    start = open_starting_weights(checkpoint, EvalModel())
    items, notes = list_images(images, links)
    with ProgressDisplay(quiet) as show:
        if remark := start.remark:
            show.say(remark)
        show.begin(f"features of {images}")
        began = time.monotonic()
        embedded, fresh = _in_parts(start, items, out, show)
        rate = fresh / max(1e-9, time.monotonic() - began)
        for note in notes:
            show.say(f"note: {note}")
        for line in embedded.skipped[:10]:
            show.say(f"left out: {line}")
        if not embedded.keys:
            raise DataError(
                f"none of the {len(items)} images of {images} can be read ({embedded.skipped[0]})"
            )
        _write(embedded, start, out)
        _delete_parts(_parts_url(out))
        count, width = embedded.features.shape
        left_out = f"{len(embedded.skipped)} left out"
        show.say(f"{out}: {count} images x {width} features, {rate:,.1f} images/s, {left_out}")
    return 0


def list_images(url: str, links: Links = "inside") -> tuple[list[LabelledImage], list[str]]:
    """Every image of a folder, sorted by key, or of a shard set as it lies there; labels do not matter.

    And what was passed over, a sentence each.
    """
    if storage.exists(storage.join(url, shard_set.MANIFEST)):
        return list(_shard_images(url)), []
    if not storage.is_local(url) or not Path(storage.local_path(url)).is_dir():
        raise DataError(f"{url} holds no {shard_set.MANIFEST} and is no local folder: give either")
    files = find_files(storage.local_path(url), links=links)
    if not files.paths:
        raise DataError(
            f"no images in {url}: it must hold {NAMED_ENDS} files{nothing_found(files, FOLLOW_LINKS)}"
        )
    items = [LabelledImage(file, "", partial(read_file, files.root, file, links)) for file in files.paths]
    return items, files.passed.lines(FOLLOW_LINKS)


def _shard_images(url: str) -> Iterator[LabelledImage]:
    """The images of a shard set, known by its indexes; of the shards themselves two are held at a time."""
    shards = _Shards(url)
    for shard in shard_set.read_manifest(url).shards:
        for entry in shard_set.read_index(url, shard):
            content = f"{shard.sha256} {entry.image_offset}"
            yield LabelledImage(entry.key, "", partial(shards.image, shard, entry), identity=content)


class _Shards:
    """Images of whole shards that are read once each where they are asked for in order."""

    def __init__(self, url: str) -> None:
        self.url, self.lock = url, threading.Lock()
        self.held: dict[str, bytes] = {}

    def image(self, shard: shard_set.Shard, entry: shard_set.Entry) -> bytes:
        """The image file's bytes; for threads too."""
        # Held while a shard is read: the other threads want the same shard, and would each fetch it.
        with self.lock:
            if shard.name not in self.held:
                # Two, because threads at the end of one shard and at the beginning of the next work side by
                # side.
                while len(self.held) > 1:
                    self.held.pop(next(iter(self.held)))
                self.held[shard.name] = set_layouts.read_shard(self.url, shard)
            data = self.held[shard.name]
        return data[entry.image_offset : entry.image_offset + entry.image_bytes]


def _in_parts(
    start: StartingWeights, items: Sequence[LabelledImage], out: str, show: ProgressDisplay
) -> tuple[Embedded, int]:
    """All features, and how many of the images had to be read now."""
    folder, model, fresh, began = _parts_url(out), None, 0, time.monotonic()

    def tick(done: int) -> None:
        rate = (fresh + done) / max(1e-9, time.monotonic() - began)
        show.advance(begin + done, len(items), rate=rate_text(rate, "images") if fresh + done else "")

    whole = Embedded([], np.empty((0, start.shape.width), np.float32), [])
    parts = []
    for begin in range(0, len(items), PART):
        some = items[begin : begin + PART]
        # A part is named by what went into it: parts of other weights or images are never taken.
        where = storage.join(folder, f"{_identity(start, some)}.npz")
        part = _read_part(where) if storage.exists(where) else None
        if part is None:
            model = model or frozen_encoder(start)
            part = _embed(model, start, some, tick)
            fresh += len(some)
            storage.write_bytes(where, _npz(part))
        parts.append(part)
    for part in parts:
        whole.keys.extend(part.keys)
        whole.skipped.extend(part.skipped)
    rows = np.concatenate([part.features for part in parts])
    return Embedded(whole.keys, rows, whole.skipped), fresh


def _embed(
    model: Any, start: StartingWeights, items: Sequence[LabelledImage], tick: Callable[[int], None]
) -> Embedded:
    keys, pixels, skipped = [], [], []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        images = list(pool.map(partial(_read, side=start.image_size), items))
    for item, image in zip(items, images, strict=True):
        if isinstance(image, str):
            skipped.append(f"{item.key}: {image}")
        else:
            keys.append(item.key)
            pixels.append(image)
    if not pixels:
        return Embedded(keys, np.empty((0, start.shape.width), np.float32), skipped)
    return Embedded(keys, compute_features(model, pixels, lambda done, _: tick(done)), skipped)


def _read(item: LabelledImage, side: int) -> Pixels | str:
    try:
        return resize_for_testing(decode_grey(item.read()), side)
    except (ValueError, OSError, StorageError, DataError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]


def _identity(start: StartingWeights, items: Sequence[LabelledImage]) -> str:
    """Changes when the weights or any of the images do: of files the bytes are asked."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        content = list(pool.map(_content, items))
    text = json.dumps([start.identity, start.image_size, [item.key for item in items], content])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _content(item: LabelledImage) -> str:
    try:
        # Images of shards are known by their shard's sha256, which the manifest holds: they need not be
        # read for this.
        return item.identity or storage.bytes_info(item.read()).sha256
    except (OSError, StorageError) as error:
        return f"cannot be read: {error}"


def _parts_url(out: str) -> str:
    return f"{out}.parts"


def _delete_parts(url: str) -> None:
    """Our parts, and their folder where nothing else lies in it."""
    for name in storage.list_names(url):
        # The folder's name is only `OUT.parts`, so a person's files may lie there: they stay.
        if _PART_NAME.fullmatch(name):
            storage.delete(storage.join(url, name))
    if not storage.list_names(url):
        storage.delete(url)


def _npz(part: Embedded, **more: Any) -> bytes:
    # As fixed-width text: arrays of objects need pickle, which np.load refuses by default.
    texts = {"keys": np.array(part.keys, dtype=np.str_), "skipped": np.array(part.skipped, dtype=np.str_)}
    return npz_bytes({**texts, "features": part.features, **more})


def _read_part(url: str) -> Embedded | None:
    """A part that is kept; None where it is damaged, so that it is made again."""
    try:
        arrays = read_npz(url)
        rows = arrays["features"].astype(np.float32)
        return Embedded(arrays["keys"].tolist(), rows, arrays["skipped"].tolist())
    except (DataError, KeyError):
        return None


def _made_by() -> NDArray[np.bytes_]:
    return np.array(output_files.mark("embed").encode())  # as bytes: text would be stored with four a letter


def _write(embedded: Embedded, start: StartingWeights, out: str) -> None:
    about = json.dumps(start.describe())
    if out.endswith(".npz"):
        storage.write_bytes(out, _npz(embedded, checkpoint=np.array(about), made_by=_made_by()))
        return
    arrow, parquet = _parquet()
    rows = arrow.FixedSizeListArray.from_arrays(embedded.features.reshape(-1), embedded.features.shape[1])
    table = arrow.table({"key": embedded.keys, "features": rows})
    with temporary() as folder:
        path = str(Path(folder) / "features.parquet")
        notes = {"checkpoint": about, "made_by": output_files.mark("embed")}
        parquet.write_table(table.replace_schema_metadata(notes), path)
        storage.put_file(path, out)


def _parquet() -> tuple[Any, Any]:
    with requires_extra("--out *.parquet", "parquet", "give a name that ends in .npz"):
        import pyarrow
        import pyarrow.parquet
    return pyarrow, pyarrow.parquet
