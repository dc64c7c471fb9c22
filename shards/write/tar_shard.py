"""Writes one tar shard in one pass, with the offsets of its samples and its sha256.

The bytes equal those of `webdataset.TarWriter` (a test compares them). It is not used here because importing
webdataset imports torch.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import fields
from typing import IO, Any

from retfound_dist.formats.shard_set import Entry
from shards.write.packed_sample import PackedSample
from shards.write.ustar import BLOCK, padded

_END = bytes(2 * BLOCK)


class TarShard:
    """Appends samples to a tar stream: KEY.jpg (.png, .webp), then KEY.json."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Begin a tar on an open, empty binary stream."""
        self._stream, self._digest = stream, hashlib.sha256()
        self.entries: list[Entry] = []
        self.length = 0
        """Bytes written so far."""

    def add(self, sample: PackedSample) -> None:
        """Append one sample."""
        image_offset = self.length + BLOCK
        json_offset = image_offset + padded(sample.image_bytes) + BLOCK
        self._write(sample.members)
        self.entries.append(
            Entry(
                sample.key,
                sample.extension,
                image_offset,
                sample.image_bytes,
                json_offset,
                sample.json_bytes,
                sample.image_sha256,
            )
        )

    def close(self) -> str:
        """Write the end marker and return the sha256 of the file; the stream stays open."""
        self._write(_END)
        # As tarfile and webdataset do: they fill the last record of 10,240 bytes.
        self._write(bytes(-self.length % tarfile.RECORDSIZE))
        return self._digest.hexdigest()

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._digest.update(data)
        self.length += len(data)


def index_bytes(entries: list[Entry], more: dict[str, Any]) -> bytes:
    """Returns an index file (see `retfound_dist.formats.shard_set`) with `more` fields about the shard."""
    names = [field.name for field in fields(Entry)]
    rows = [[getattr(entry, name) for name in names] for entry in entries]
    return (json.dumps({"format": 1, **more, "samples": rows}, separators=(",", ":")) + "\n").encode()
