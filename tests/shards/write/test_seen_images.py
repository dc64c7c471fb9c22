from __future__ import annotations

import numpy as np

from retfound_dist.formats.shard_set import IndexFile, Shard
from shards.write.committed_shards import CommittedShard
from shards.write.seen_images import SeenImages
from shards.write.statistics import Statistics


def committed(keys: list[str], digests: list[int]) -> CommittedShard:
    shard = Shard("oct-000000.tar", len(keys), 1, "", None, IndexFile("oct-000000.idx", 1, ""))
    return CommittedShard(shard, 0, (), Statistics(), "\n".join(keys), np.array(digests, np.uint64))


def test_a_picture_is_known_by_the_key_that_had_it_first() -> None:
    rng = np.random.default_rng(0)
    digests = [int(d) for d in rng.integers(0, 2**64, 500, dtype=np.uint64)]
    seen = SeenImages([committed(["old"], [digests[0]])])
    assert seen.find_or_add(digests[0], "new") == "old"
    for begin in range(1, 451, 50):
        keys = [f"k{place}" for place in range(begin, begin + 50)]
        assert [seen.find_or_add(digests[begin + i], key) for i, key in enumerate(keys)] == [None] * 50
        assert seen.find_or_add(digests[begin + 3], "again") == keys[3]
        seen.find_or_add(
            begin, f"next {begin}"
        )  # comes before the shard is committed that has no room for it
        seen.add(committed(keys, digests[begin : begin + 50]))
        assert seen.find_or_add(begin, "again") == f"next {begin}"
    assert [seen.find_or_add(digests[place], "again") for place in range(1, 451)] == [
        f"k{p}" for p in range(1, 451)
    ]
    assert seen.find_or_add(digests[499], "last") is None


def test_the_first_scan_may_have_any_digest() -> None:
    seen = SeenImages([])
    assert seen.find_or_add(0, "a") is None
    assert seen.find_or_add(0, "b") == "a"
