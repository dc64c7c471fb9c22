"""Recognizes an image in whatever file it comes, by 64-bit digests of its bytes and its pixels.

Packing may crop, scale, convert to grey and encode again. So a shard's index keeps four digests of each
sample: of the source file, of its grey pixels, of the packed pixels, and of the stored file. An image is the
same as a sample where they have any digest in common. Equal pictures are found; pictures that only look alike
are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image

from retfound_dist.errors import ManifestError, RecordError
from retfound_dist.formats.shard_set import FORMAT, Manifest, Shard, image_digest
from retfound_dist.formats.shard_set_files import IndexRow
from retfound_dist.io import storage
from retfound_dist.records import json_reader

Digests = NDArray[np.uint64]
SOURCE_FILES, SOURCE_PIXELS, PACKED_PIXELS = "source_files", "source_pixels", "digests"
"""Lists in an index, 16 hex digits for each sample. Empty: not known, or (source pixels) the same as
packed."""
DIGESTS_PER_SAMPLE = 4
STORED, PACKED, SOURCES = 1, 2, 3
# Threads wait for the store here; parsing takes one core in any case.
INDEXES_AT_ONCE = 16
_REMEDY = "pack the set again"


def pixel_digest(pixels: NDArray[np.uint8]) -> int:
    """64-bit xxHash (XXH3) of shape and pixels."""
    # xxHash and not sha256: it runs over all pixels while packing, and nobody forges pictures that collide.
    # The shape is the seed: without it two blank pictures of equal area would be one.
    height, width = pixels.shape[:2]
    seed = (height << 32) + 4 * width + pixels.ndim
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(pixels).data, seed)


def grey_digest(pixels: NDArray[np.uint8]) -> int:
    """`pixel_digest` of a grey picture, or of a colour one converted to grey."""
    return pixel_digest(pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(pixels).convert("L")))


def file_digest(data: bytes) -> int:
    """64-bit xxHash (XXH3) of a file's bytes."""
    return xxhash.xxh3_64_intdigest(data)


def digests_of_image(data: bytes, pixels_HW: NDArray[np.uint8]) -> tuple[int, ...]:
    """The digests of an image file and of its grey pixels."""
    return file_digest(data), pixel_digest(pixels_HW), int(image_digest(data), 16)


def from_hex(texts: Sequence[str]) -> Digests:
    """Digests of 16 hex digits as numbers, 0 for an empty text; ValueError where a text is not a digest."""
    message = "a digest is not 16 hex digits"
    # One conversion for all texts: `int(text, 16)` for each takes twice as long, and there are millions.
    try:
        whole = bytes.fromhex("".join([text.rjust(16, "0") for text in texts]))
    except ValueError as error:
        raise ValueError(message) from error
    if len(whole) != 8 * len(texts):
        raise ValueError(message)
    return np.frombuffer(whole, ">u8").astype(np.uint64)


@dataclass(frozen=True)
class _Index:
    """The keys of an index file that hold digests."""

    format: int
    samples: list[IndexRow]
    source_files: list[str] | None = None
    source_pixels: list[str] | None = None
    digests: list[str] | None = None


@dataclass(frozen=True)
class ImageDigests:
    """Digests of the images in a shard set, or in a part of it."""

    digests: Digests
    """(samples, COLUMNS), in the set's order; 0: not known."""
    level: int
    """The digests that every index has: of SOURCES, or only of PACKED pixels, or only of STORED files."""

    def sorted_unique(self) -> Digests:
        """All digests without repetitions, in ascending order."""
        unique: Digests = np.unique(self.digests)
        return np.delete(unique, np.flatnonzero(unique == 0))


def set_digests(manifest: Manifest) -> ImageDigests:
    """The digests of a shard set's images, from its index files: no image is read.

    ManifestError or StorageError where an index cannot be read.
    """
    with ThreadPoolExecutor(INDEXES_AT_ONCE) as pool:
        shards = list(pool.map(partial(_shard_digests, manifest.url), manifest.shards))
    rows = [shard.digests for shard in shards]
    empty = np.zeros((0, DIGESTS_PER_SAMPLE), np.uint64)
    return ImageDigests(
        np.concatenate([empty, *rows]), min((shard.level for shard in shards), default=SOURCES)
    )


def part_digests(manifest: Manifest, split: str) -> ImageDigests:
    """The digests of one part of a set (`Manifest.part`)."""
    return set_digests(replace(manifest, shards=manifest.part(split)))


def have_known_digest(rows: list[tuple[int, ...]], known: Digests) -> NDArray[np.bool_]:
    """(N,) whether any digest of an image is among `known`, which is sorted; a digest of 0 never is."""
    # A sorted array and a binary search: a Python set of the digests of 1.6 million images takes hundreds of
    # megabytes.
    lengths = [len(row) for row in rows]
    flat = np.array([digest for row in rows for digest in row], np.uint64)
    if not len(known) or not len(flat):
        return np.zeros(len(rows), np.bool_)
    # searchsorted gives len(known) for a digest above all of them; any last place will do, it is compared
    # next.
    place = np.minimum(np.searchsorted(known, flat), len(known) - 1)
    owner = np.repeat(np.arange(len(rows)), lengths)
    return np.bincount(owner, weights=(known[place] == flat) & (flat != 0), minlength=len(rows)) > 0


def _shard_digests(url: str, shard: Shard) -> ImageDigests:
    """The digests of a shard's images, from its index file; ManifestError where that is damaged."""
    where = storage.join(url, shard.index.name)
    data = storage.read_bytes(where)
    if storage.bytes_info(data).sha256 != shard.index.sha256:
        raise ManifestError(f"{where} differs from the manifest's sha256: fetch or pack this shard again")
    try:
        index = json_reader.parse_large(data, _Index, where, _REMEDY, format=FORMAT)
        level = SOURCES if index.source_files is not None else PACKED if index.digests is not None else STORED
        stored, missing = [row[6] for row in index.samples], [""] * len(index.samples)
        lists = (index.source_files, index.source_pixels, index.digests, stored)
        if any(texts is not None and len(texts) != len(stored) for texts in lists):
            raise ValueError(f"its lists do not have one digest for each of its {len(stored):,} samples")
        columns = [from_hex(missing if texts is None else texts) for texts in lists]
        return ImageDigests(np.stack(columns, axis=1), level)
    except RecordError as error:
        raise ManifestError(str(error)) from error
    except ValueError as error:
        raise ManifestError(str(json_reader.damage_error(where, str(error), _REMEDY))) from error
