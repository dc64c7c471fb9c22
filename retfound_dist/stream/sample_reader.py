"""Samples out of shards: bytes to pixels, checked; a bad one is replaced, by name.

Every sample's bytes are held against the sha256 in its shard's index, wherever they come from. A bad
sample is replaced by the next good one in the order of the shard set, whoever reads it, so the
replacement is the same at every world size.
"""

from __future__ import annotations

import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from retfound_dist.errors import DataError
from retfound_dist.formats.shard_set import Entry, Shard, image_digest, read_index
from retfound_dist.images import decoding
from retfound_dist.io import disk_errors, retry, storage
from retfound_dist.io.byte_ranges import Range, ReadTraffic, count, read_ranges

Pixels = NDArray[np.uint8]
Rows = Callable[[int, int], int]
"""Width and height of an image to the number of its rows that are needed, from the top."""
Needs = Callable[[int, int, int], int]
"""The same for the image at a place of a batch, told first."""
TRIES, LONGEST_PAUSE = 8, 0.5  # seconds
"""Times that a sample with the wrong bytes is asked of the store again: so many are no chance."""


@dataclass(frozen=True)
class DecodedSample:
    """A decoded image: (H, W) uint8 grey, or (H, W, 3) RGB."""

    key: str
    pixels: Pixels
    faults: tuple[str, ...] = ()
    """What was wrong with the samples this one stands in for."""


class ShardSource(Protocol):
    """Where shards are: on this machine's disk, or copied here."""

    url: str

    def path(self, shard: Shard) -> str | None:
        """The shard as a local file; None: its samples are to be asked of the store."""

    def prepare(self, shards: Sequence[Shard]) -> None:
        """The entries of these shards are wanted next."""

    def entries(self, shard: Shard) -> tuple[Entry, ...]:
        """The shard's index."""

    def damaged(self, shard: Shard) -> None:
        """The local file holds other bytes than the store."""


class LocalShards:
    """A shard set on this machine's disk, read where it is."""

    def __init__(self, url: str) -> None:
        self.url = url

    def path(self, shard: Shard) -> str | None:
        """The shard's file; DataError where it is missing."""
        path = storage.local_path(storage.join(self.url, shard.name))
        if not storage.exists(path):
            raise DataError(f"shard file {path} is missing: pack the set again, or repair the copy")
        return path

    def prepare(self, shards: Sequence[Shard]) -> None:
        """Nothing is to be fetched."""

    def entries(self, shard: Shard) -> tuple[Entry, ...]:
        """The shard's index."""
        return read_index(self.url, shard)

    def damaged(self, shard: Shard) -> None:
        """What is here is all there is."""


@dataclass(frozen=True)
class _Open:
    """A shard that is being read from."""

    entries: tuple[Entry, ...]
    data: _LocalFile | None
    """None: ask the store."""


class _LocalFile:
    """A shard on this machine's disk.

    It is read, not mapped into memory: of a mapped file that is cut short, or whose disk fails, a process
    gets no error but SIGBUS, which kills it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def image(self, entry: Entry) -> bytes:
        """A sample's bytes; fewer where the file ends before. OSError when the disk fails."""
        at, left, parts = entry.image_offset, entry.image_bytes, []
        while left > 0 and (part := os.pread(self._file, left, at)):
            parts.append(part)
            at, left = at + len(part), left - len(part)
        return b"".join(parts)


class Reader:
    """Reads samples of the shards of one part, keeping at most `keep` of them open."""

    def __init__(
        self,
        source: ShardSource,
        shards: Sequence[Shard],
        grey: bool,
        keep: int,
        in_a_row: int,
        patience_s: float,
    ) -> None:
        """`in_a_row`: bad samples one after the other before it is an error."""
        self.source, self.shards, self.grey, self.patience_s = source, shards, grey, patience_s
        self._keep, self._in_a_row = keep, in_a_row
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._wrong: set[str] = set()  # in the store itself, found out once

    def read(self, places: Sequence[tuple[int, int]], needs: Needs | None = None) -> Iterator[DecodedSample]:
        """The samples at (shard, index), in order; what is not on disk is fetched in one go.

        `needs` is asked before each image is decoded, and may be asked again when it is replaced.
        """
        numbers = list(dict.fromkeys(shard for shard, _ in places))
        self.source.prepare([self.shards[number] for number in numbers if number not in self._open])
        opened = {number: self._opened(number) for number in numbers}
        far = [place for place in places if opened[place[0]].data is None]
        ranges = [self._range(shard, opened[shard].entries[index]) for shard, index in far]
        fetched = dict(zip(far, read_ranges(ranges, self.patience_s), strict=True)) if far else {}
        for number, (shard, index) in enumerate(places):
            rows = partial(needs, number) if needs else None
            found, entry = opened[shard], opened[shard].entries[index]
            data = self._local(shard, entry, found.data) if found.data else fetched.get((shard, index))
            try:
                yield DecodedSample(
                    entry.key, self._checked(shard, entry, data, found.data is not None, rows)
                )
            except ValueError as error:
                yield self._replacement(shard, index, f"{self._name(shard, entry)}: {error}", rows)

    def _replacement(self, shard: int, index: int, fault: str, rows: Rows | None) -> DecodedSample:
        """The next good sample; DataError when there is none near."""
        faults = [fault]
        total = sum(s.samples for s in self.shards)
        while len(faults) <= min(self._in_a_row, total - 1):
            index += 1
            if index >= self.shards[shard].samples:
                shard, index = (shard + 1) % len(self.shards), 0
            entry = self._opened(shard).entries[index]
            try:
                return DecodedSample(entry.key, self._alone(shard, entry, rows), tuple(faults))
            except ValueError as error:
                faults.append(f"{self._name(shard, entry)}: {error}")
        raise DataError(
            f"{len(faults)} samples in a row cannot be read, the first: {faults[0]}; "
            f"run `retfound verify {self.source.url}`"
        )

    def _alone(self, shard: int, entry: Entry, rows: Rows | None) -> Pixels:
        found = self._opened(shard)
        data = self._local(shard, entry, found.data) if found.data else self._ask(shard, entry)
        return self._checked(shard, entry, data, found.data is not None, rows)

    def _local(self, shard: int, entry: Entry, file: _LocalFile) -> bytes | None:
        """A sample's bytes from the disk; None where they are to be asked of the store.

        DataError where there is only this disk, and it fails: that is no fault of the sample.
        """
        try:
            return file.image(entry)
        except OSError as error:
            if storage.is_local(self.source.url):
                why = disk_errors.explain(error, file.path)
                raise DataError(f"cannot read {entry.key} in {file.path}: {why}") from error
            return None

    def _checked(
        self, shard: int, entry: Entry, data: bytes | None, local: bool, rows: Rows | None
    ) -> Pixels:
        """Decoded pixels; ValueError when the store's bytes are wrong or no image."""
        if data is None or image_digest(data) != entry.image_sha256:
            data = self._again(shard, entry, local)
        return decode(data, self.grey, rows)

    def _again(self, shard: int, entry: Entry, local: bool) -> bytes:
        """The right bytes, asked of the store; ValueError when it has others."""
        name = self._name(shard, entry)
        if not storage.is_local(self.source.url) and name not in self._wrong:
            for number in range(TRIES):
                count(ReadTraffic(retries=1))
                retry.pause(number, LONGEST_PAUSE)
                data = self._ask(shard, entry)
                if image_digest(data) == entry.image_sha256:
                    if local:
                        self._open.pop(shard, None)
                        self.source.damaged(self.shards[shard])
                    return data
            self._wrong.add(name)
        raise ValueError("its bytes differ from the manifest's")

    def _ask(self, shard: int, entry: Entry) -> bytes:
        return read_ranges([self._range(shard, entry)], self.patience_s)[0]

    def _range(self, shard: int, entry: Entry) -> Range:
        where = storage.join(self.source.url, self.shards[shard].name)
        return Range(where, entry.image_offset, entry.image_offset + entry.image_bytes)

    def _name(self, shard: int, entry: Entry) -> str:
        return f"{self.shards[shard].name}/{entry.key}.{entry.extension}"

    def _opened(self, number: int) -> _Open:
        found = self._open.pop(number, None)
        if found is None or found.data is None:
            shard = self.shards[number]
            path = self.source.path(shard)
            entries = found.entries if found else self.source.entries(shard)
            found = _Open(entries, _opened_file(path) if path else None)
        self._open[number] = found
        while len(self._open) > self._keep:
            self._open.popitem(last=False)
        return found


def _opened_file(path: str) -> _LocalFile | None:
    """A local file; None where it has just been removed."""
    try:
        return _LocalFile(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot open {path}: {disk_errors.explain(error, path)}") from error


def decode(data: bytes, grey: bool, rows: Rows | None = None) -> Pixels:
    """Image file bytes to (H, W) uint8, or (H, W, 3) unless `grey`; ValueError when they are damaged.

    Decoded as `retfound_dist.images.decoding` says. With `rows`, which is told width and height, what lies
    below the rows it wants may be missing.
    """
    frame = grey_frame(data) if grey and rows and data[:2] == b"\xff\xd8" else None
    if frame and rows:
        return _upper_rows(data, frame, rows(frame.width, frame.height))
    pixels = decoding.decode_grey(data) if grey else decoding.decode_colour(data)
    if rows:
        rows(pixels.shape[1], pixels.shape[0])
    return pixels


@dataclass(frozen=True)
class JpegFrame:
    """The frame header of a baseline JPEG with one component."""

    at: int
    """Where the two bytes of the height stand."""
    height: int
    width: int


def grey_frame(data: bytes) -> JpegFrame | None:
    """The frame header; None for colour, deep and progressive JPEGs, those with EXIF data (which may turn
    the picture), and where there is none.
    """
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker in (0xC0, 0xC1):
            height, width = int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
            plain = data[at + 4] == 8 and data[at + 9] == 1 and height
            return JpegFrame(at + 5, height, width) if plain else None
        if marker == 0xE1 and data[at + 4 : at + 8] == b"Exif":
            return None
        if 0xC2 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return None
        at += 2 + length
    return None


def _upper_rows(data: bytes, frame: JpegFrame, wanted: int) -> Pixels:
    """At least the first `wanted` rows: the header is told that there are no more.

    The decoder stops there and complains of what follows, so it is not strict: the bytes have been held
    against their sha256, and packing has decoded them strictly.
    """
    strict = wanted >= frame.height
    if not strict:
        data = b"".join((data[: frame.at], wanted.to_bytes(2), data[frame.at + 2 :]))
    pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace="GRAY", strict=strict)
    return pixels[:, :, 0]
