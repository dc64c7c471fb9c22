"""What all checks share: the config of the run, its shards, and the ranks that check together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retfound_dist.config.schema import PretrainConfig
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.train.ranks.collectives import RankGroup


@dataclass(frozen=True)
class Checkup:
    """One run of the doctor, on one rank."""

    config: PretrainConfig
    config_path: str
    overrides: Sequence[str]
    """Settings of the command line, which the trial run gets too."""
    manifest: Manifest
    group: RankGroup
    trial_url: str
    """Where the trial run and the store's check write; deleted at the end."""
    minutes: float
    """About how long all checks together may take."""

    @property
    def workers(self) -> int:
        """Loader processes of this rank."""
        assert self.config.data.workers != "auto", "the command replaces it"
        return self.config.data.workers

    @property
    def on_gpu(self) -> bool:
        """Whether this rank computes on a GPU."""
        return self.group.device.type == "cuda"

    def seconds(self, share: float) -> float:
        """So much of the whole time, in seconds."""
        return 60 * self.minutes * share

    @property
    def hosts(self) -> int:
        """Number of hosts, if all have as many ranks as this one."""
        return max(1, self.group.world.size // self.group.world.local_size)
