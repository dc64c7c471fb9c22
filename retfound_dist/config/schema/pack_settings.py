"""Settings of `retfound pack`."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from retfound_dist.config.schema.setting_types import STRICT, Count, Parts, Positive, PositiveFloat

SourceKind = Literal[
    "folder",
    "csv",
    "device",
    "octid",
    "octdl",
    "kermany",
    "octa500",
    "duke_dme",
    "goals",
    "topcon",
    "phantom",
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Source:
    """Where the images come from."""

    kind: SourceKind = "folder"
    """`folder`: class folders of images. `csv`: a list of files. `device`: raw exports of OCT devices
    (`.e2e`, `.fda`, `.fds`, `.img`, `.oct` and DICOM are experimental: docs/device_files.md).
    `phantom`: generated images. Any other: the public data set of that name, as it is downloaded
    (docs/datasets.md)."""
    path: str = ""
    """Folder to read. For `csv`: the list itself. `phantom` ignores it."""
    name: str = ""
    """Name of this source in the manifest. Empty: the name of the folder for `folder` and `csv`,
    otherwise the kind."""
    follow_links: Literal["inside", "anywhere"] = "inside"
    """Which symbolic links are followed. `inside`: only links to files and folders inside `path`.
    `anywhere`: all links. Then the folder can lead to any file that you can read, so use it only for
    folders that you trust."""
    keys: Literal["auto", "digest", "names"] = "auto"
    """How keys, patients and volumes are named. `digest`: by a digest that is made with your own secret
    (RETFOUND_SALT). `names`: as in the files and lists. `auto`: by a digest for device files, and
    wherever the names look like a person, a date or an identifier (docs/privacy.md)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Phantom:
    """The generated images. Only used if `source.kind` is `phantom`."""

    patients: Positive = 120
    """Number of patients. Each patient has one class. The five classes are equally frequent."""
    slices: Positive = 8
    """B-scans in each volume."""
    lesion_slices: Count = 0
    """B-scans of each volume that show the lesion, next to each other at a random place. The others show the
    healthy retina beside it. 0: all."""
    volumes: Annotated[int, Field(ge=1, le=2)] = 1
    """Volumes (eyes) of each patient."""
    height: Annotated[int, Field(ge=64)] = 192
    """Height of a B-scan in pixels."""
    width: Annotated[int, Field(ge=64)] = 256
    """Width of a B-scan in pixels."""
    seed: Count = 0
    """Random seed of the generated images."""


Suspect = Literal["mask", "overlay", "composite", "nir", "photo"]
"""Kinds of pictures that are probably not B-scans (shards/images/suspects.py)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PackImage:
    """How images are stored."""

    format: Literal["jpg", "png", "webp"] = "jpg"
    """Format of stored images. PNG and WebP are lossless. A grey JPEG that is not rotated,
    trimmed or scaled is always stored as it is."""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """JPEG quality."""
    max_height: Count = 0
    """Images that are taller are scaled down to this height in pixels. Images are never scaled up. 0:
    keep every size."""
    trim: bool = False
    """Remove rows and columns of one grey level from the edges, and thin bright frames."""
    leave_out_suspects: tuple[Suspect, ...] = ()
    """Kinds of suspicious pictures to leave out, such as ["mask", "nir"]. `mask`: few grey levels.
    `overlay`: colour on a scan. `composite`: two pictures side by side. `nir`: an en-face image. `photo`:
    a fundus photograph. Empty: suspicious pictures are packed, counted, and shown on quality.html."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Split:
    """How images are divided into parts: by patient. Where the patient is not known, by volume. Where the
    volume is not known either, by image."""

    fractions: Parts = (0.0, 0.0, 0.0)
    """Shares of train, val and test, such as [0.6, 0.2, 0.2]. All zero: use the split of the source, if
    it has one."""
    seed: Count = 0
    """Random seed that decides which patient goes into which part."""
    unknown_patient: Literal["volume", "image"] = "volume"
    """What to do with images whose patient is not known. `volume`: keep the slices of one volume in one
    part, and also the images of a folder below a class folder. Volumes come from the list, the device
    file or the file names. `image`: assign every image alone."""

    @model_validator(mode="after")
    def _sums_to_one(self) -> Split:
        # A tolerance, because 0.7 + 0.2 + 0.1 is not exactly 1 in floating point.
        if any(f < 0 for f in self.fractions) or (
            sum(self.fractions) not in (0.0,) and abs(sum(self.fractions) - 1) > 1e-6
        ):
            raise ValueError(
                f"split.fractions {list(self.fractions)} must be three shares that sum to 1, or all 0"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PackOut:
    """Where the shards are written."""

    url: str
    """Path or URL of the shard set."""
    name: str = "oct"
    """First part of the shards' names: NAME-000000.tar, NAME-000001.tar and so on."""
    shard_mb: PositiveFloat = 64.0
    """Target size of a shard in MB (10^6 bytes)."""
    seed: Count = 0
    """Random seed that shuffles samples over the shards, so that neighbouring slices of a volume are
    spread out."""
    bad_sample_budget: Count = 100
    """How many unreadable images are left out and reported. With one more, packing stops with an error."""
    workers: Count = 0
    """Processes that decode and encode images. 0: one for each core."""
    names_table: str = ""
    """Local file that maps digests to the original names. Only you can read it, and it is never part of
    the set. Empty: `~/.local/share/retfound/names/NAME-<digest of out.url>.csv`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PackConfig:
    """`retfound pack`: images to shards."""

    out: PackOut
    source: Source = field(default_factory=Source)
    sources: tuple[Source, ...] = ()
    """Several sources in one set. Leave out `source` then."""
    root: str = ""
    """Folder that relative paths of the sources start from. Empty: the current folder."""
    phantom: Phantom = field(default_factory=Phantom)
    image: PackImage = field(default_factory=PackImage)
    split: Split = field(default_factory=Split)

    @model_validator(mode="after")
    def _one_way(self) -> PackConfig:
        if self.sources and self.source != Source():
            raise ValueError("source and sources are both given: remove one of them")
        return self

    @property
    def all_sources(self) -> tuple[Source, ...]:
        """`sources`, or `source` as the only one."""
        return self.sources or (self.source,)
