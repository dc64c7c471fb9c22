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
    """What is known beside the config."""

    samples: int
    """Images an epoch."""
    shards: int
    largest_shard_bytes: int = 0
    remote: bool = True
    """Whether shards must be fetched to be read."""
    ranks: int = 0
    """0: not known."""
    ranks_per_node: int = 0
    micro_batch: int = 0
    """As it is cut at this number of ranks; 0: not known."""
    padding: float = 0.0
    """Share of a step's slots that hold no image."""
    held_out: bool = True
    """Whether some patients are kept from training; True where it is not known."""
    patients: int | None = None
    """Behind the images, at most; None: not known."""
    volumes: int | None = None
    """Behind the images; None: not known."""
    image: Mapping[str, Any] = field(default_factory=dict)
    """The manifest's `image` section; empty where there is no shard set yet."""


@dataclass(frozen=True)
class Finding:
    """One risk."""

    level: Level
    key: str
    """The setting."""
    what: str
    why: str
    source: str
    instead: str

    def line(self) -> str:
        """One line for a person."""
        return f"{self.level}: {self.key}: {self.what}. {self.why} ({self.source}). Instead: {self.instead}"


Rule = Callable[[PretrainConfig, Facts], Iterator[Finding]]


def epochs(config: PretrainConfig, facts: Facts) -> float:
    """Passes over the data."""
    return config.train.epochs or config.train.steps * config.train.global_batch / facts.samples
