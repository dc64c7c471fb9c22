"""Settings of `retfound suite`."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from retfound_dist.config.schema.evaluate_settings import (
    OWN,
    EvalData,
    EvalModel,
    External,
    check_pool,
)
from retfound_dist.config.schema.finetune_settings import Finetune, Probe
from retfound_dist.config.schema.setting_types import STRICT, Count, Positive, Seeds

ALL_CELLS = "1/1"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SuiteSet(EvalData):
    """One labelled set of a suite."""

    external: External = field(default_factory=External)
    """A second test set for the rows of this set."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SuiteOut:
    """Where the suite is written."""

    url: str
    """Folder or URL for suite.json and suite.md, and for a folder with the comparison of each set."""
    report: str = ""
    """Path or URL of the page. Empty: report.html in `url`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SuiteConfig:
    """`retfound suite`: several starting weights on several labelled sets."""

    weights: dict[str, str]
    """Name of each row = its starting weights: a file, the URL of a checkpoint, the name of a timm model,
    or `none`."""
    sets: dict[str, SuiteSet]
    """The labelled sets, each as a table [sets.NAME]. A set whose path does not exist is left out and
    named."""
    out: SuiteOut
    seeds: Seeds = (0,)
    """Random seeds. Each row is fine-tuned once for each on each set."""
    sizes: Literal["own", "same"] | Annotated[tuple[Positive, ...], Field(min_length=1)] = "own"
    """Input sizes, as for `compare`. A list such as [224, 518]: a suite of its own for each size, in
    OUT/size_224 and so on."""
    model: EvalModel = field(default_factory=EvalModel)
    finetune: Finetune = field(default_factory=Finetune)
    probe: Probe = field(default_factory=Probe)
    cells: Annotated[str, Field(pattern=r"^[1-9]\d*/[1-9]\d*$")] = ALL_CELLS
    """Share of the cells that this call evaluates. A cell is one row on one set. `2/8`: the second of eight
    shares, such as one job of a Slurm array. Together, the shares have each cell once."""
    jobs: Positive = 1
    """Cells that are evaluated at the same time, each in its own process. They share the threads and use
    the GPUs in turn."""
    threads: Count = 0
    """CPU threads of all cells together. 0: all cores."""
    bootstrap: Positive = 1000
    """Resamples for each 95 % interval."""

    @model_validator(mode="after")
    def _has_cells(self) -> SuiteConfig:
        """ValueError for a suite without rows or sets, or for settings that exclude each other."""
        if not self.weights:
            raise ValueError('weights is empty: give at least one row, such as weights.scratch = "none"')
        if not self.sets:
            raise ValueError('sets is empty: give at least one set, such as sets.octid.path = "OCTID"')
        # A suite may have sets of eyes beside sets of images, which are not pooled.
        check_pool([one.unit for one in self.sets.values()], self.finetune)
        if isinstance(self.sizes, tuple) and self.model.image_size != OWN:
            raise ValueError("sizes and model.image_size both give sizes: give one of the two")
        part, _, count = self.cells.partition("/")
        if int(part) > int(count):
            raise ValueError(f"cells={self.cells}: there are only {count} shares; count from 1")
        return self
