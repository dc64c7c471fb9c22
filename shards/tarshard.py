"""One tar shard, and where each sample lies in it.

The standard library's `tarfile` writes what `webdataset.TarWriter` writes (a test compares the
bytes), without importing torch, which `webdataset` does. Headers hold no time, user or machine, so
the same samples give the same file.
"""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import astuple
from typing import IO, Any

from retfound_dist.shardset import Entry, image_digest
from shards.sample import Sample

BLOCK = 512


class TarShard:
    """Appends samples to a tar stream: KEY.jpg or KEY.png, then KEY.json."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Begin a tar on an open, empty binary stream."""
        self._tar = tarfile.TarFile.open(fileobj=stream, mode="w|", format=tarfile.USTAR_FORMAT)
        self.entries: list[Entry] = []

    @property
    def length(self) -> int:
        """Bytes written so far, before the end marker."""
        return int(self._tar.offset)

    def add(self, sample: Sample) -> None:
        """Append one sample."""
        image = self._add(f"{sample.key}.{sample.extension}", sample.image)
        fields = self._add(f"{sample.key}.json", sample.json)
        self.entries.append(
            Entry(
                sample.key,
                sample.extension,
                image,
                len(sample.image),
                fields,
                len(sample.json),
                image_digest(sample.image),
            )
        )

    def close(self) -> None:
        """Write the end marker; the stream stays open."""
        self._tar.close()

    def _add(self, name: str, data: bytes) -> int:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o444
        self._tar.addfile(member, io.BytesIO(data))
        return int(self._tar.offset) - -(-len(data) // BLOCK) * BLOCK


def sample_bytes(sample: Sample) -> int:
    """Bytes a sample takes in a tar: two headers and two padded bodies."""
    return sum(BLOCK - (-len(body) // BLOCK) * BLOCK for body in (sample.image, sample.json))


def index_bytes(entries: list[Entry], more: dict[str, Any]) -> bytes:
    """An index file (see `retfound_dist.shardset`), with what else is to be kept of the shard."""
    rows = [list(astuple(entry)) for entry in entries]
    return (json.dumps({"format": 1, **more, "samples": rows}, separators=(",", ":")) + "\n").encode()
