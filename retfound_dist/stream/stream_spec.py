"""All that fixes a stream, in one value that is sent to every process of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retfound_dist.config.schema import Data
from retfound_dist.formats.shard_set import Manifest, Shard
from retfound_dist.io import storage
from retfound_dist.runtime.world import World
from retfound_dist.stream.augment import Augment
from retfound_dist.stream.batch_plan import BatchLayout, BatchPlan, rank_share
from retfound_dist.stream.prefetch import FetchedShards, Lookahead, Prefetcher
from retfound_dist.stream.sample_reader import LocalShards, Reader
from retfound_dist.stream.shard_cache import ShardCache


@dataclass(frozen=True)
class StreamSpec:
    """One rank's stream up to, not including, `stop_step`."""

    manifest: Manifest
    data: Data
    plan: BatchPlan
    cut: BatchLayout
    how: Augment
    world: World
    stop_step: int
    cache_dir: str

    @property
    def grey(self) -> bool:
        """Whether images have one channel."""
        return not self.manifest.image.get("colour")

    @property
    def remote(self) -> bool:
        """Whether shards are to be fetched."""
        return not storage.is_local(self.manifest.url)

    @property
    def shards(self) -> Sequence[Shard]:
        """The part that is read."""
        return self.manifest.part(self.data.split)

    def cache(self) -> ShardCache:
        """The node's copies of the shards."""
        limit = round(self.data.cache_gb * 1e9) if self.data.cache_gb and self.data.cache_dir else None
        temporary = not self.data.cache_dir
        return ShardCache(self.manifest.url, self.cache_dir, limit, temporary, self.data.patience_s)

    def lookahead(self) -> Lookahead:
        """What this rank and its node need."""
        first = self.world.rank - self.world.local_rank
        own, node = rank_share(self.cut, self.world.rank), rank_share(self.cut, first, self.world.local_size)
        return Lookahead(self.plan, own, node, self.stop_step)

    def prefetcher(self) -> Prefetcher:
        """Threads that fetch ahead of this rank."""
        return Prefetcher(self.cache(), self.shards, self.lookahead())

    def reader(self, fetched: FetchedShards | None) -> Reader:
        """Reads the samples, out of `fetched` or where they are."""
        source = fetched or LocalShards(self.manifest.url)
        keep, budget = 2 * self.plan.window + 2, self.data.bad_sample_budget
        return Reader(source, self.shards, self.grey, keep, budget, self.data.patience_s)
