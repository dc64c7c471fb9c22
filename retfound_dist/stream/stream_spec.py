"""The specification of a rank's stream. It is sent to every process of the stream."""

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
from retfound_dist.stream.sample_reader import LocalShards, SampleReader
from retfound_dist.stream.shard_cache import ShardCache


@dataclass(frozen=True)
class StreamSpec:
    """One rank's stream up to, not including, `stop_step`."""

    manifest: Manifest
    data: Data
    plan: BatchPlan
    layout: BatchLayout
    augment: Augment
    world: World
    stop_step: int
    cache_dir: str
    workers: int
    """Loader processes of this rank. 0: the rank's own process loads."""

    @property
    def grey(self) -> bool:
        """Whether images have one channel."""
        return not self.manifest.image.get("colour")

    @property
    def remote(self) -> bool:
        """Whether shards have to be fetched."""
        return not storage.is_local(self.manifest.url)

    @property
    def shards(self) -> Sequence[Shard]:
        """The shards of the part that is read."""
        return self.manifest.part(self.data.split)

    def cache(self) -> ShardCache:
        """The node's copies of the shards."""
        # A temporary folder needs no limit: it only has the shards that the next steps need.
        limit = round(self.data.cache_gb * 1e9) if self.data.cache_gb and self.data.cache_dir else None
        temporary = not self.data.cache_dir
        return ShardCache(self.manifest.url, self.cache_dir, limit, temporary, self.data.patience_s)

    def lookahead(self) -> Lookahead:
        """Determines the shards that this rank and its node need."""
        # torchrun, and srun by default, give the ranks of a node consecutive numbers: so its slots are one
        # slice.
        first_rank = self.world.rank - self.world.local_rank
        rank_slots = rank_share(self.layout, self.world.rank)
        node_slots = rank_share(self.layout, first_rank, self.world.local_size)
        return Lookahead(self.plan, rank_slots, node_slots, self.stop_step)

    def prefetcher(self) -> Prefetcher:
        """Threads that fetch ahead of this rank."""
        return Prefetcher(self.cache(), self.shards, self.lookahead())

    def reader(self, fetched: FetchedShards | None) -> SampleReader:
        """Reads the samples from `fetched`, or from the shard set itself."""
        source = fetched or LocalShards(self.manifest.url)
        # A batch may span two windows, and a bad sample may be replaced from a shard outside of both.
        max_open, budget = 2 * self.plan.window + 2, self.data.bad_sample_budget
        return SampleReader(source, self.shards, self.grey, max_open, budget, self.data.patience_s)
