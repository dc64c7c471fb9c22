"""The input of the recipe check (`Facts`) and its output (`Finding`). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from retfound_dist.config.schema import PretrainConfig

Level = Literal["serious", "warning", "note"]
LEVELS: tuple[Level, ...] = ("serious", "warning", "note")


@dataclass(frozen=True)
class Facts:
    """What the rules know beside the config."""

    samples: int
    """Images in an epoch."""
    shards: int
    largest_shard_bytes: int = 0
    remote: bool = True
    """Whether shards are read from an object store."""
    ranks: int = 0
    """0 where it is not known."""
    ranks_per_node: int = 0
    micro_batch: int = 0
    """Images in one pass of a rank; 0 where it is not known."""
    padding: float = 0.0
    """Share of a step's slots without an image."""
    held_out: bool = True
    """Whether some patients are not trained on; True where it is not known."""
    patients: int | None = None
    """The most patients that the images can be of; None where it is not known."""
    volumes: int | None = None
    """Volumes that the images are of; None where it is not known."""
    image: Mapping[str, Any] = field(default_factory=dict)
    """The manifest's `image` section; empty where there is no shard set yet."""


@dataclass(frozen=True)
class Finding:
    """One risk."""

    level: Level
    key: str
    """The setting."""
    problem: str
    reason: str
    source: str
    """The article or page that the reason comes from."""
    remedy: str

    def line(self) -> str:
        """One line for a person."""
        return (
            f"{self.level}: {self.key}: {self.problem}. {self.reason} ({self.source}). Instead: {self.remedy}"
        )

    def to_json(self) -> dict[str, str]:
        """The finding as `retfound plan --json` prints it."""
        return {
            "level": self.level,
            "key": self.key,
            "what": self.problem,
            "why": self.reason,
            "source": self.source,
            "instead": self.remedy,
        }


Rule = Callable[[PretrainConfig, Facts], Iterator[Finding]]
"""Yields a finding for each risk that it sees; nothing where there is none."""


def epochs(config: PretrainConfig, facts: Facts) -> float:
    """Passes over the data."""
    return config.train.epochs or config.train.steps * config.train.global_batch / facts.samples
