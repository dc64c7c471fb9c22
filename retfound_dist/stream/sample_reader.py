"""Reads samples from shards: checks their bytes, decodes them, and replaces bad ones.

Every sample's bytes are compared with the sha256 in its shard's index, wherever they come from. A bad
sample is replaced by the next good one in the order of the shard set, whichever rank reads it. So the
replacement is the same at every world size. Each bad sample is named.
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
"""The same for an image of a batch; its place in the batch is the first argument."""
# Eight wrong answers in a row are no chance: then the store itself holds other bytes. The longest pause
# between two of them is in seconds.
TRIES, LONGEST_PAUSE = 8, 0.5


@dataclass(frozen=True)
class DecodedSample:
    """A decoded image: (H, W) uint8 grey, or (H, W, 3) RGB."""

    key: str
    pixels: Pixels
    faults: tuple[str, ...] = ()
    """What was wrong with the samples this one stands in for."""


class ShardSource(Protocol):
    """Gives access to shards: on this machine's disk, or as copies of a remote set."""

    url: str

    def path(self, shard: Shard) -> str | None:
        """The shard as a local file; None: its samples have to be read from the store."""

    def prepare(self, shards: Sequence[Shard]) -> None:
        """Called with all shards of a batch before their entries are read one by one."""

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
        """Does nothing: there is nothing to fetch."""

    def entries(self, shard: Shard) -> tuple[Entry, ...]:
        """The shard's index."""
        return read_index(self.url, shard)

    def damaged(self, shard: Shard) -> None:
        """Does nothing: there is no other copy."""


@dataclass(frozen=True)
class _OpenShard:
    """A shard that is being read from."""

    entries: tuple[Entry, ...]
    data: _LocalFile | None
    """None: read from the store."""


class _LocalFile:
    """A shard on this machine's disk.

    It is read, not mapped into memory: of a mapped file that is cut short, or whose disk fails, a process
    gets no error but SIGBUS, which kills it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY)
        # Not closed where it is dropped from the open shards: a batch that is being read may still hold it.
        weakref.finalize(self, os.close, self._file)

    def image(self, entry: Entry) -> bytes:
        """A sample's bytes; fewer where the file ends before. OSError when the disk fails."""
        offset, missing, parts = entry.image_offset, entry.image_bytes, []
        # pread(2) may return less than it was asked for, and nothing at the end of the file.
        while missing > 0 and (part := os.pread(self._file, missing, offset)):
            parts.append(part)
            offset, missing = offset + len(part), missing - len(part)
        return b"".join(parts)


class Reader:
    """Reads samples of the shards of one part, and keeps at most `max_open` of them open."""

    def __init__(
        self,
        source: ShardSource,
        shards: Sequence[Shard],
        grey: bool,
        max_open: int,
        in_a_row: int,
        patience_s: float,
    ) -> None:
        """`in_a_row`: so many bad samples one after the other are replaced; one more is an error."""
        self.source, self.shards, self.grey, self.patience_s = source, shards, grey, patience_s
        self._max_open, self._in_a_row = max_open, in_a_row
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()
        # Samples that are wrong in the store itself: later epochs do not try them `TRIES` times again.
        self._wrong: set[str] = set()

    def read(self, places: Sequence[tuple[int, int]], needs: Needs | None = None) -> Iterator[DecodedSample]:
        """The samples at (shard, index), in order; those not on disk are read from the store side by side.

        `needs` is asked before each image is decoded, and may be asked again when it is replaced.
        """
        numbers = list(dict.fromkeys(shard for shard, _ in places))
        self.source.prepare([self.shards[number] for number in numbers if number not in self._open])
        opened = {number: self._open_shard(number) for number in numbers}
        remote = [place for place in places if opened[place[0]].data is None]
        ranges = [self._range(shard, opened[shard].entries[index]) for shard, index in remote]
        fetched = dict(zip(remote, read_ranges(ranges, self.patience_s), strict=True)) if remote else {}
        for number, (shard, index) in enumerate(places):
            rows = partial(needs, number) if needs else None
            file, entry = opened[shard].data, opened[shard].entries[index]
            data = self._read_local(shard, entry, file) if file else fetched.get((shard, index))
            try:
                yield DecodedSample(entry.key, self._checked(shard, entry, data, file is not None, rows))
            except ValueError as error:
                yield self._replacement(shard, index, f"{self._name(shard, entry)}: {error}", rows)

    def _replacement(self, shard: int, index: int, fault: str, rows: Rows | None) -> DecodedSample:
        """The next good sample; DataError when more than `in_a_row` in a row are bad."""
        faults = [fault]
        total = sum(s.samples for s in self.shards)
        while len(faults) <= min(self._in_a_row, total - 1):
            index += 1
            if index >= self.shards[shard].samples:
                shard, index = (shard + 1) % len(self.shards), 0
            entry = self._open_shard(shard).entries[index]
            try:
                return DecodedSample(entry.key, self._read_one(shard, entry, rows), tuple(faults))
            except ValueError as error:
                faults.append(f"{self._name(shard, entry)}: {error}")
        raise DataError(
            f"{len(faults)} samples in a row cannot be read, the first: {faults[0]}; "
            f"run `retfound verify {self.source.url}`"
        )

    def _read_one(self, shard: int, entry: Entry, rows: Rows | None) -> Pixels:
        file = self._open_shard(shard).data
        data = self._read_local(shard, entry, file) if file else self._read_remote(shard, entry)
        return self._checked(shard, entry, data, file is not None, rows)

    def _read_local(self, shard: int, entry: Entry, file: _LocalFile) -> bytes | None:
        """A sample's bytes from the disk; None where they have to be read from the store.

        DataError where the set is on this disk only, and the disk fails: that is no fault of the sample.
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
        """Decoded pixels; ValueError when the store's bytes are wrong or cannot be decoded."""
        if data is None or image_digest(data) != entry.image_sha256:
            data = self._read_correct_bytes(shard, entry, local)
        return decode(data, self.grey, rows)

    def _read_correct_bytes(self, shard: int, entry: Entry, local: bool) -> bytes:
        """The right bytes, read from the store; ValueError when it has others."""
        # A set on this machine's disk is not read again: the disk would give the same bytes.
        name = self._name(shard, entry)
        if not storage.is_local(self.source.url) and name not in self._wrong:
            for number in range(TRIES):
                count(ReadTraffic(retries=1))
                retry.sleep_before_retry(number, LONGEST_PAUSE)
                data = self._read_remote(shard, entry)
                if image_digest(data) == entry.image_sha256:
                    # Only now is it clear that the copy is at fault, and not the store.
                    if local:
                        self._open.pop(shard, None)
                        self.source.damaged(self.shards[shard])
                    return data
            self._wrong.add(name)
        raise ValueError("its bytes differ from the manifest's")

    def _read_remote(self, shard: int, entry: Entry) -> bytes:
        return read_ranges([self._range(shard, entry)], self.patience_s)[0]

    def _range(self, shard: int, entry: Entry) -> Range:
        where = storage.join(self.source.url, self.shards[shard].name)
        return Range(where, entry.image_offset, entry.image_offset + entry.image_bytes)

    def _name(self, shard: int, entry: Entry) -> str:
        return f"{self.shards[shard].name}/{entry.key}.{entry.extension}"

    def _open_shard(self, number: int) -> _OpenShard:
        shard = self._open.pop(number, None)
        # A shard that was read from the store until now may have been copied since.
        if shard is None or shard.data is None:
            described = self.shards[number]
            path = self.source.path(described)
            entries = shard.entries if shard else self.source.entries(described)
            shard = _OpenShard(entries, _open_file(path) if path else None)
        self._open[number] = shard
        while len(self._open) > self._max_open:
            self._open.popitem(last=False)
        return shard


def _open_file(path: str) -> _LocalFile | None:
    """A local file; None where another process has just removed it from the cache."""
    try:
        return _LocalFile(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot open {path}: {disk_errors.explain(error, path)}") from error


def decode(data: bytes, grey: bool, rows: Rows | None = None) -> Pixels:
    """Image file bytes to (H, W) uint8, or (H, W, 3) unless `grey`; ValueError when they are damaged.

    Decoded as `retfound_dist.images.decoding` says. `rows` gets width and height, and returns how many rows
    are needed; rows below them may be missing.
    """
    # A JPEG can only be decoded from its top, so a crop needs what is above it too.
    frame = grey_frame(data) if grey and rows and data[:2] == b"\xff\xd8" else None
    if frame and rows:
        return _upper_rows(data, frame, rows(frame.width, frame.height))
    pixels = decoding.decode_grey(data) if grey else decoding.decode_colour(data)
    # Asked here too, for its effect: the caller draws the crop when it learns the size.
    if rows:
        rows(pixels.shape[1], pixels.shape[0])
    return pixels


@dataclass(frozen=True)
class JpegFrame:
    """The frame header of a baseline JPEG with one component."""

    at: int
    """Offset of the two bytes that hold the height."""
    height: int
    width: int


def grey_frame(data: bytes) -> JpegFrame | None:
    """The frame header of a baseline grey JPEG of 8 bits; None for all else, and where there is EXIF data.

    EXIF data may turn the picture, and then its first rows are not the first ones of the result.
    """
    # Segments follow the two bytes of the start marker: 0xFF, marker, then a length that counts itself.
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        # SOF0 and SOF1: baseline and extended sequential (ITU T.81, table B.1).
        if marker in (0xC0, 0xC1):
            height, width = int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
            plain = data[at + 4] == 8 and data[at + 9] == 1 and height
            return JpegFrame(at + 5, height, width) if plain else None
        if marker == 0xE1 and data[at + 4 : at + 8] == b"Exif":
            return None
        # The other SOFs are progressive, lossless, hierarchical or arithmetic; DHT, JPG and DAC between
        # them are no frames.
        if 0xC2 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return None
        at += 2 + length
    return None


def _upper_rows(data: bytes, frame: JpegFrame, wanted: int) -> Pixels:
    """At least the first `wanted` rows. The header is changed to say that there are no more.

    The decoder stops there and warns about the bytes that follow, so it cannot be strict. It need not be: the
    bytes match their sha256, and packing has decoded them strictly.
    """
    strict = wanted >= frame.height
    if not strict:
        data = b"".join((data[: frame.at], wanted.to_bytes(2), data[frame.at + 2 :]))
    pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace="GRAY", strict=strict)
    return pixels[:, :, 0]
