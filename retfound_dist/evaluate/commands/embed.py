"""`retfound embed`: features of a folder of images or a shard set, as .npz or .parquet.

    retfound embed RUN images/ --out features.npz

Finished parts are kept beside the target, so an interrupted command continues.
"""

from __future__ import annotations

import hashlib
import json
import os
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

from retfound_dist.config.schema import OWN, EvalModel
from retfound_dist.errors import ConfigError, DataError, StorageError
from retfound_dist.evaluate.data import set_layouts
from retfound_dist.evaluate.data.set_layouts import LabelledImage
from retfound_dist.evaluate.data.starting_weights import StartingWeights, open_starting_weights
from retfound_dist.evaluate.pixels.gray_pixels import Pixels, decode_grey, pixels_or_reason
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
from retfound_dist.io import finished_parts, output_files, storage
from retfound_dist.io.scratch import new_temporary_folder
from retfound_dist.listing.folder_layout import passed_files_clause
from retfound_dist.runtime.optional_packages import import_parquet
from retfound_dist.runtime.progress import ProgressDisplay, rate_text

PART_IMAGES = 512
"""Number of images in one part."""
OUTPUT_ENDINGS = (".npz", ".parquet")
FOLLOW_LINKS = "--follow-links"
"""The option that allows links that lead out of the folder."""


@dataclass(frozen=True)
class Embedded:
    """Features of the images that could be read."""

    keys: list[str]
    features: Features
    """(N, D)"""
    skipped: list[str]
    """`key: reason` of the images that cannot be read."""


def embed_command(
    checkpoint: str,
    images: str,
    out: str,
    quiet: bool = False,
    links: Links = "inside",
    force: bool = False,
    image_size: int | None = None,
) -> int:
    """Run `retfound embed`; RetfoundError for anything that a user can fix."""
    began = time.time()
    if not out.endswith(OUTPUT_ENDINGS):
        raise ConfigError(f"--out {out}: give a name that ends in {' or '.join(OUTPUT_ENDINGS)}")
    # Checked before hours of work, which must not end with a missing package.
    if out.endswith(".parquet"):
        import_parquet("give a name that ends in .npz")
    output_files.check_may_write(out, "embed", force)
    start = open_starting_weights(checkpoint, EvalModel(image_size=image_size or OWN))
    items, notes = list_images(images, links)
    with ProgressDisplay(quiet) as show:
        if remark := start.remark:
            show.say(remark)
        show.begin(f"features of {images}")
        started = time.monotonic()
        embedded, computed = _embed_in_parts(start, items, out, show)
        rate = computed / max(1e-9, time.monotonic() - started)
        for note in notes:
            show.say(f"note: {note}")
        for line in embedded.skipped[:10]:
            show.say(f"left out: {line}")
        if not embedded.keys:
            raise DataError(
                f"none of the {len(items)} images of {images} can be read ({embedded.skipped[0]}): "
                "repair or replace the files"
            )
        _write_features(embedded, start, out)
        finished_parts.delete_parts(out, began)
        count, width = embedded.features.shape
        left_out = f"{len(embedded.skipped)} left out"
        show.say(f"{out}: {count} images x {width} features, {rate:,.1f} images/s, {left_out}")
    return 0


def list_images(url: str, links: Links = "inside") -> tuple[list[LabelledImage], list[str]]:
    """Every image of a folder (sorted by key) or a shard set (in its order), with or without labels.

    Also a sentence for each kind of file that was skipped.
    """
    if storage.exists(storage.join(url, shard_set.MANIFEST)):
        return list(_shard_images(url)), []
    if not storage.is_local(url) or not Path(storage.local_path(url)).is_dir():
        raise DataError(
            f"{url} has no {shard_set.MANIFEST} and is not a local folder: give a shard set or a folder"
        )
    files = find_files(storage.local_path(url), links=links)
    if not files.paths:
        raise DataError(
            f"no images in {url}: it must hold {NAMED_ENDS} files{passed_files_clause(files, FOLLOW_LINKS)}"
        )
    items = [LabelledImage(file, "", partial(read_file, files.root, file, links)) for file in files.paths]
    return items, files.skipped.lines(FOLLOW_LINKS)


def _shard_images(url: str) -> Iterator[LabelledImage]:
    """The images of a shard set, listed from its indexes. At most two shards are in memory."""
    shards = _Shards(url)
    for shard in shard_set.read_manifest(url).shards:
        for entry in shard_set.read_index(url, shard):
            content = f"{shard.sha256} {entry.image_offset}"
            yield LabelledImage(entry.key, "", partial(shards.image, shard, entry), identity=content)


class _Shards:
    """Images of shards. Each shard is read once where images are requested in order."""

    def __init__(self, url: str) -> None:
        self.url, self.lock = url, threading.Lock()
        self.cached_shards: dict[str, bytes] = {}

    def image(self, shard: shard_set.Shard, entry: shard_set.Entry) -> bytes:
        """The bytes of an image file; safe to call from threads."""
        # Locked while a shard is read, because other threads need the same shard and would read it too.
        with self.lock:
            if shard.name not in self.cached_shards:
                # Two, because threads may be at the end of one shard and at the beginning of the next.
                while len(self.cached_shards) > 1:
                    self.cached_shards.pop(next(iter(self.cached_shards)))
                self.cached_shards[shard.name] = set_layouts.read_shard(self.url, shard)
            data = self.cached_shards[shard.name]
        return data[entry.image_offset : entry.image_offset + entry.image_bytes]


def _embed_in_parts(
    start: StartingWeights, items: Sequence[LabelledImage], out: str, show: ProgressDisplay
) -> tuple[Embedded, int]:
    """All features, and the number of images that were computed now."""
    folder, model, computed, started = finished_parts.parts_url(out), None, 0, time.monotonic()

    def on_progress(done: int) -> None:
        rate = (computed + done) / max(1e-9, time.monotonic() - started)
        show.advance(begin + done, len(items), rate=rate_text(rate, "images") if computed + done else "")

    parts = []
    for begin in range(0, len(items), PART_IMAGES):
        part_items = items[begin : begin + PART_IMAGES]
        # The name is a digest of weights and images, so that other parts are never reused.
        part_url = storage.join(folder, f"{_identity(start, part_items)}.npz")
        part = _read_part(part_url) if storage.exists(part_url) else None
        if part is None:
            model = model or frozen_encoder(start)
            part = _compute_embeddings(model, start, part_items, on_progress)
            computed += len(part_items)
            storage.write_bytes(part_url, _part_bytes(part))
        parts.append(part)
    keys = [key for part in parts for key in part.keys]
    skipped = [line for part in parts for line in part.skipped]
    return Embedded(keys, np.concatenate([part.features for part in parts]), skipped), computed


def _compute_embeddings(
    model: Any, start: StartingWeights, items: Sequence[LabelledImage], on_progress: Callable[[int], None]
) -> Embedded:
    """Compute the features of all images; those that cannot be read are skipped, with the reason."""
    keys, pixels, skipped = [], [], []
    interpolation = start.backbone.preparation.interpolation
    read = partial(pixels_or_reason, side=start.image_size, interpolation=interpolation)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        images = list(pool.map(read, [partial(_gray, item) for item in items]))
    for item, image in zip(items, images, strict=True):
        if isinstance(image, str):
            skipped.append(f"{item.key}: {image}")
        else:
            keys.append(item.key)
            pixels.append(image)
    if not pixels:
        return Embedded(keys, np.empty((0, start.backbone.facts.width), np.float32), skipped)
    rows = compute_features(model, start.backbone, pixels, lambda done, _: on_progress(done))
    return Embedded(keys, rows, skipped)


def _gray(item: LabelledImage) -> Pixels:
    return decode_grey(item.read())


def _identity(start: StartingWeights, items: Sequence[LabelledImage]) -> str:
    """A digest of the weights and of the content of the images."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        content = list(pool.map(_content_digest, items))
    encoder, keys = start.backbone.architecture(), [item.key for item in items]
    text = json.dumps([start.identity, encoder, start.image_size, keys, content])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _content_digest(item: LabelledImage) -> str:
    """A digest that changes with the image's content, or why the image cannot be read."""
    try:
        # Images of shards need not be read: the manifest has the sha256 of their shard.
        return item.identity or storage.bytes_info(item.read()).sha256
    except (OSError, StorageError) as error:
        return f"cannot be read: {error}"


def _part_bytes(part: Embedded, **more: Any) -> bytes:
    # Fixed-width text, because arrays of objects need pickle, which np.load refuses by default.
    texts = {"keys": np.array(part.keys, dtype=np.str_), "skipped": np.array(part.skipped, dtype=np.str_)}
    return npz_bytes({**texts, "features": part.features, **more})


def _read_part(url: str) -> Embedded | None:
    """A finished part; None where it is damaged, so that it is made again."""
    try:
        arrays = read_npz(url)
        rows = arrays["features"].astype(np.float32)
        return Embedded(arrays["keys"].tolist(), rows, arrays["skipped"].tolist())
    except (DataError, KeyError):
        return None


def _made_by() -> NDArray[np.bytes_]:
    return np.array(
        output_files.mark("embed").encode()
    )  # as bytes, because NumPy stores text with four bytes for each letter


def _write_features(embedded: Embedded, start: StartingWeights, out: str) -> None:
    """Write keys and features to `out`, as .npz or .parquet."""
    checkpoint = json.dumps(start.describe())
    if out.endswith(".npz"):
        storage.write_bytes(out, _part_bytes(embedded, checkpoint=np.array(checkpoint), made_by=_made_by()))
        return
    arrow, parquet = import_parquet("give a name that ends in .npz")
    rows = arrow.FixedSizeListArray.from_arrays(embedded.features.reshape(-1), embedded.features.shape[1])
    table = arrow.table({"key": embedded.keys, "features": rows})
    with new_temporary_folder() as folder:
        path = str(Path(folder) / "features.parquet")
        metadata = {"checkpoint": checkpoint, "made_by": output_files.mark("embed")}
        parquet.write_table(table.replace_schema_metadata(metadata), path)
        storage.put_file(path, out)
