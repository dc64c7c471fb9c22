"""Reads samples from shards: checks their bytes, decodes them, and replaces bad ones.

Every sample's bytes are compared with the sha256 in its shard's index, on disk and from the store. A bad
sample is replaced by the next good one in the order of the shard set, on any rank. So the replacement is the
same at every world size. Each bad sample is reported.
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
from retfound_dist.io.byte_ranges import Range, ReadTraffic, add_traffic, read_ranges

Pixels = NDArray[np.uint8]
RowsNeeded = Callable[[int, int], int]
"""From the width and height of an image to the number of rows that are needed, from the top."""
BatchRowsNeeded = Callable[[int, int, int], int]
"""The same for an image of a batch; its position in the batch is the first argument."""
# Eight wrong answers in a row are not by chance: then the store itself has other bytes.
MAX_READS, LONGEST_PAUSE_S = 8, 0.5


@dataclass(frozen=True)
class DecodedSample:
    """A decoded image: (H, W) uint8 grey, or (H, W, 3) RGB."""

    key: str
    pixels: Pixels
    faults: tuple[str, ...] = ()
    """The faults of the samples that this one replaces."""


class ShardSource(Protocol):
    """Access to shards: on this machine's disk, or as copies of a remote set."""

    url: str

    def path(self, shard: Shard) -> str | None:
        """The path of the local file; None: samples have to be read from the store."""

    def prepare(self, shards: Sequence[Shard]) -> None:
        """Called with all shards of a batch before their indexes are read one by one."""

    def entries(self, shard: Shard) -> tuple[Entry, ...]:
        """The shard's index."""

    def report_damage(self, shard: Shard) -> None:
        """Called when the local file has other bytes than the store."""


class LocalShards:
    """A shard set on this machine's disk, which is read directly."""

    def __init__(self, url: str) -> None:
        self.url = url

    def path(self, shard: Shard) -> str | None:
        """The shard's file; DataError if it is missing."""
        path = storage.local_path(storage.join(self.url, shard.name))
        if not storage.exists(path):
            raise DataError(f"shard file {path} is missing: pack the set again, or repair the copy")
        return path

    def prepare(self, shards: Sequence[Shard]) -> None:
        """Does nothing: there is nothing to fetch."""

    def entries(self, shard: Shard) -> tuple[Entry, ...]:
        """The shard's index."""
        return read_index(self.url, shard)

    def report_damage(self, shard: Shard) -> None:
        """Does nothing: there is no other copy."""


@dataclass(frozen=True)
class _OpenShard:
    """A shard from which samples are read."""

    entries: tuple[Entry, ...]
    data: _LocalFile | None
    """None: read from the store."""


class _LocalFile:
    """A shard on this machine's disk.

    It is read, not mapped into memory: if a mapped file is truncated or its disk fails, the process gets no
    error but SIGBUS, which kills it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY)
        # Closed by the garbage collector: when a shard is closed, a batch that is being read may still use
        # it.
        weakref.finalize(self, os.close, self._file)

    def image(self, entry: Entry) -> bytes:
        """A sample's bytes; fewer if the file is too short. OSError if the disk fails."""
        offset, missing, parts = entry.image_offset, entry.image_bytes, []
        # pread(2) may return fewer bytes than requested, and none at the end of the file.
        while missing > 0 and (part := os.pread(self._file, missing, offset)):
            parts.append(part)
            offset, missing = offset + len(part), missing - len(part)
        return b"".join(parts)


class SampleReader:
    """Reads samples from the shards of one part, and keeps at most `max_open` shards open."""

    def __init__(
        self,
        source: ShardSource,
        shards: Sequence[Shard],
        grey: bool,
        max_open: int,
        max_replaced: int,
        patience_s: float,
    ) -> None:
        """`max_replaced`: the number of bad samples in a row that are replaced. One more is an error."""
        self.source, self.shards, self.grey, self.patience_s = source, shards, grey, patience_s
        self._max_open, self._max_replaced = max_open, max_replaced
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()
        # Samples whose bytes in the store are wrong: later epochs do not read them `MAX_READS` times again.
        self._bad_in_store: set[str] = set()

    def read(
        self, positions: Sequence[tuple[int, int]], rows_needed: BatchRowsNeeded | None = None
    ) -> Iterator[DecodedSample]:
        """The samples at (shard, index), in order; those not on disk are read from the store in parallel.

        `rows_needed` is called before each image is decoded, and again if the image is replaced.
        """
        numbers = list(dict.fromkeys(shard for shard, _ in positions))
        self.source.prepare([self.shards[number] for number in numbers if number not in self._open])
        opened = {number: self._opened_shard(number) for number in numbers}
        from_store = [position for position in positions if opened[position[0]].data is None]
        ranges = [self._range(shard, opened[shard].entries[index]) for shard, index in from_store]
        fetched = {}
        if from_store:
            fetched = dict(zip(from_store, read_ranges(ranges, self.patience_s), strict=True))
        for number, (shard, index) in enumerate(positions):
            rows = partial(rows_needed, number) if rows_needed else None
            file, entry = opened[shard].data, opened[shard].entries[index]
            data = self._read_local(entry, file) if file else fetched.get((shard, index))
            try:
                pixels = self._decode_verified(shard, entry, data, file is not None, rows)
                yield DecodedSample(entry.key, pixels)
            except ValueError as error:
                yield self._replacement(shard, index, f"{self._sample_name(shard, entry)}: {error}", rows)

    def _replacement(self, shard: int, index: int, fault: str, rows: RowsNeeded | None) -> DecodedSample:
        """The next good sample; DataError if more than `max_replaced` in a row are bad."""
        faults = [fault]
        total = sum(s.samples for s in self.shards)
        while len(faults) <= min(self._max_replaced, total - 1):
            index += 1
            if index >= self.shards[shard].samples:
                shard, index = (shard + 1) % len(self.shards), 0
            entry = self._opened_shard(shard).entries[index]
            try:
                return DecodedSample(entry.key, self._read_one(shard, entry, rows), tuple(faults))
            except ValueError as error:
                faults.append(f"{self._sample_name(shard, entry)}: {error}")
        raise DataError(
            f"{len(faults)} samples in a row cannot be read, the first: {faults[0]}; "
            f"run `retfound verify {self.source.url}`"
        )

    def _read_one(self, shard: int, entry: Entry, rows: RowsNeeded | None) -> Pixels:
        file = self._opened_shard(shard).data
        data = self._read_local(entry, file) if file else self._read_remote(shard, entry)
        return self._decode_verified(shard, entry, data, file is not None, rows)

    def _read_local(self, entry: Entry, file: _LocalFile) -> bytes | None:
        """A sample's bytes from the disk; None if they have to be read from the store.

        If the disk fails and the set is only on this disk, the error is a DataError, not a ValueError. So the
        sample is not replaced as a bad one.
        """
        try:
            return file.image(entry)
        except OSError as error:
            if storage.is_local(self.source.url):
                reason = disk_errors.explain(error, file.path)
                raise DataError(f"cannot read {entry.key} in {file.path}: {reason}") from error
            return None

    def _decode_verified(
        self, shard: int, entry: Entry, data: bytes | None, local: bool, rows: RowsNeeded | None
    ) -> Pixels:
        """Decoded pixels; ValueError if the bytes in the store are wrong or cannot be decoded."""
        if data is None or image_digest(data) != entry.image_sha256:
            data = self._read_again(shard, entry, local)
        return decode(data, self.grey, rows)

    def _read_again(self, shard: int, entry: Entry, local: bool) -> bytes:
        """The correct bytes from the store; ValueError if it has others."""
        # A set on this machine's disk is not read again: the disk would return the same bytes.
        name = self._sample_name(shard, entry)
        if not storage.is_local(self.source.url) and name not in self._bad_in_store:
            for number in range(MAX_READS):
                add_traffic(ReadTraffic(retries=1))
                retry.sleep_before_retry(number, LONGEST_PAUSE_S)
                data = self._read_remote(shard, entry)
                if image_digest(data) == entry.image_sha256:
                    # Now it is clear that the copy is damaged, not the store.
                    if local:
                        self._open.pop(shard, None)
                        self.source.report_damage(self.shards[shard])
                    return data
            self._bad_in_store.add(name)
        raise ValueError("its bytes differ from the manifest's")

    def _read_remote(self, shard: int, entry: Entry) -> bytes:
        return read_ranges([self._range(shard, entry)], self.patience_s)[0]

    def _range(self, shard: int, entry: Entry) -> Range:
        where = storage.join(self.source.url, self.shards[shard].name)
        return Range(where, entry.image_offset, entry.image_offset + entry.image_bytes)

    def _sample_name(self, shard: int, entry: Entry) -> str:
        return f"{self.shards[shard].name}/{entry.key}.{entry.extension}"

    def _opened_shard(self, number: int) -> _OpenShard:
        """A shard, opened if it is not open yet; the least recently used one is closed."""
        shard = self._open.pop(number, None)
        # A shard that was read from the store before may have a copy now.
        if shard is None or shard.data is None:
            shard_info = self.shards[number]
            path = self.source.path(shard_info)
            entries = shard.entries if shard else self.source.entries(shard_info)
            shard = _OpenShard(entries, _open_file(path) if path else None)
        self._open[number] = shard
        while len(self._open) > self._max_open:
            self._open.popitem(last=False)
        return shard


def _open_file(path: str) -> _LocalFile | None:
    """A local file; None if another process has just removed it from the cache."""
    try:
        return _LocalFile(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot open {path}: {disk_errors.explain(error, path)}") from error


def decode(data: bytes, grey: bool, rows: RowsNeeded | None = None) -> Pixels:
    """Decode an image file to (H, W) uint8, or (H, W, 3) unless `grey`; ValueError if it is damaged.

    `retfound_dist.images.decoding` decodes it. `rows` gets width and height, and returns the number of rows
    that are needed; rows below them may be missing.
    """
    # A JPEG can only be decoded from the top, so a crop also needs the rows above it.
    frame = find_grey_frame(data) if grey and rows and data[:2] == b"\xff\xd8" else None
    if frame and rows:
        return _decode_upper_rows(data, frame, rows(frame.width, frame.height))
    pixels = decoding.decode_grey(data) if grey else decoding.decode_colour(data)
    # Called here too for its side effect: the caller draws the crop when it gets the size.
    if rows:
        rows(pixels.shape[1], pixels.shape[0])
    return pixels


@dataclass(frozen=True)
class JpegFrame:
    """The frame header of a baseline JPEG with one component."""

    height_offset: int
    """Position of the two bytes that contain the height."""
    height: int
    width: int


def find_grey_frame(data: bytes) -> JpegFrame | None:
    """The frame header of a baseline grey JPEG of 8 bits; None for all other files, and if it has EXIF data.

    EXIF data may rotate the picture: then its first rows are not the first ones of the result.
    """
    # Segments follow the two bytes of the start marker: 0xFF, marker, then a length that includes itself.
    offset = 2
    while offset + 10 <= len(data) and data[offset] == 0xFF:
        marker, length = data[offset + 1], int.from_bytes(data[offset + 2 : offset + 4])
        # SOF0 and SOF1: baseline and extended sequential (ITU T.81, table B.1).
        if marker in (0xC0, 0xC1):
            height = int.from_bytes(data[offset + 5 : offset + 7])
            width = int.from_bytes(data[offset + 7 : offset + 9])
            is_grey = data[offset + 4] == 8 and data[offset + 9] == 1 and height
            return JpegFrame(offset + 5, height, width) if is_grey else None
        if marker == 0xE1 and data[offset + 4 : offset + 8] == b"Exif":
            return None
        # The other SOFs are progressive, lossless, hierarchical or arithmetic. DHT, JPG and DAC between
        # them are not frames.
        if 0xC2 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return None
        offset += 2 + length
    return None


def _decode_upper_rows(data: bytes, frame: JpegFrame, row_count: int) -> Pixels:
    """At least the first `wanted` rows. The header is changed to say that there are no more.

    The decoder stops there and warns about the bytes that follow, so it cannot be strict. That is safe: the
    bytes match their sha256, and packing has decoded them strictly.
    """
    strict = row_count >= frame.height
    if not strict:
        data = b"".join((data[: frame.height_offset], row_count.to_bytes(2), data[frame.height_offset + 2 :]))
    pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace="GRAY", strict=strict)
    return pixels[:, :, 0]
