"""Do the manifest's counts agree with the indexes? Asked before a stream begins.

Which samples form a batch follows from the shards' counts alone. One wrong count moves every batch, without
an error, so all of them are compared before the first batch. An index that was packed here says its count
at its beginning: that part is enough. The whole index is held against the manifest when it is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from retfound_dist.errors import RecordError
from retfound_dist.formats.shard_set import Shard, check_count, read_index
from retfound_dist.formats.shard_set_files import HeadShard
from retfound_dist.io import storage
from retfound_dist.io.byte_ranges import Range, read_ranges
from retfound_dist.records import json_reader

HEAD_BYTES = 2048
_HEAD = re.compile(rb'\{"format":1,"shard":(\{[^{}]*\})')


def check_counts(url: str, shards: Sequence[Shard], patience_s: float) -> None:
    """ManifestError where a shard's index holds another number of samples than the manifest says.

    The same error whoever asks: the first such shard is named. StorageError where an index cannot be read.
    """
    known = [shard for shard in shards if shard.index.bytes]
    where = {shard.index.name: storage.join(url, shard.index.name) for shard in known}
    wanted = [Range(where[s.index.name], 0, min(HEAD_BYTES, s.index.bytes)) for s in known]
    heads = dict(zip((s.index.name for s in known), read_ranges(wanted, patience_s), strict=True))
    for shard in shards:
        count = count_in(heads.get(shard.index.name, b""))
        if count is None:
            read_index(url, shard)  # which compares them
        else:
            check_count(shard, count, where[shard.index.name])


def count_in(head: bytes) -> int | None:
    """The number of samples that the beginning of an index tells of; None where it tells none."""
    found = _HEAD.match(head)
    try:
        return json_reader.parse(found[1], HeadShard, "", "").samples if found else None
    except RecordError:
        return None  # the whole index is read instead, and says what is wrong with it
