"""Compares the manifest's number of samples of each shard with the index files, before a stream begins.

The shards' counts alone decide which samples form a batch. One wrong count would silently move every batch,
so all counts are compared before the first one. Index files that this system packed have their count at the
beginning, so only that part is read. The whole index is checked later, when it is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from retfound_dist.errors import RecordError
from retfound_dist.formats.shard_set import Shard, check_count, read_index
from retfound_dist.formats.shard_set_files import IndexHead
from retfound_dist.io import storage
from retfound_dist.io.byte_ranges import Range, read_ranges
from retfound_dist.records import json_reader

HEAD_BYTES = 2048
# Not the JSON reader, because a head is only a part of a file. Packing writes these two keys first, without
# spaces.
_HEAD = re.compile(rb'\{"format":1,"shard":(\{[^{}]*\})')


def check_counts(url: str, shards: Sequence[Shard], patience_s: float) -> None:
    """ManifestError where a shard's index has another number of samples than the manifest.

    The error names the first such shard, so it is the same on every rank. StorageError where an index cannot
    be read. `patience_s`: seconds to wait for a store that does not answer.
    """
    non_empty = [shard for shard in shards if shard.index.bytes]
    where = {shard.index.name: storage.join(url, shard.index.name) for shard in non_empty}
    ranges = [Range(where[s.index.name], 0, min(HEAD_BYTES, s.index.bytes)) for s in non_empty]
    # All ranges in one call, which reads them in parallel: a set has thousands of shards.
    heads = dict(zip((s.index.name for s in non_empty), read_ranges(ranges, patience_s), strict=True))
    for shard in shards:
        count = count_in_head(heads.get(shard.index.name, b""))
        if count is None:
            read_index(url, shard)  # it compares the counts
        else:
            check_count(shard, count, where[shard.index.name])


def count_in_head(head: bytes) -> int | None:
    """The number of samples in the beginning of an index file; None where there is none."""
    match = _HEAD.match(head)
    try:
        return json_reader.parse(match[1], IndexHead, "", "").samples if match else None
    except RecordError:
        return None  # the whole index is read instead, which reports the fault
