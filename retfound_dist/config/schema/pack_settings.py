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
    """`folder`: class folders of images; `csv`: a list of files; `device`: raw exports of OCT devices;
    `phantom`: generated; any other: the data set of that name, as it is downloaded (docs/datasets.md)."""
    path: str = ""
    """Folder to read (of `csv`: the list itself); unused by `phantom`."""
    name: str = ""
    """Name of this source in the manifest; when empty the kind, of `folder` and `csv` the folder's name."""
    follow_links: Literal["inside", "anywhere"] = "inside"
    """Symbolic links that are followed: those to files and folders inside `path`, or all. `anywhere` lets
    the folder name any file that you can read: set it for folders you trust."""
    keys: Literal["auto", "digest", "names"] = "auto"
    """What keys, patients and volumes are called: `digest`, a digest by a secret of your own (RETFOUND_SALT);
    `names`, as files and lists call them; `auto`, digests where those look like a person, a date or an
    identifier, and of device files (docs/privacy.md)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Phantom:
    """The generated corpus, read when `source.kind` is `phantom`."""

    patients: Positive = 120
    """Patients, one class each, balanced over the five classes."""
    slices: Positive = 8
    """B-scans a volume."""
    volumes: Annotated[int, Field(ge=1, le=2)] = 1
    """Volumes (eyes) a patient."""
    height: Annotated[int, Field(ge=64)] = 192
    """Pixels."""
    width: Annotated[int, Field(ge=64)] = 256
    """Pixels."""
    seed: Count = 0
    """What is drawn is a function of this seed."""


Suspect = Literal["mask", "overlay", "composite", "nir", "photo"]
"""What a picture that is no B-scan may be (shards/images/suspects.py)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PackImage:
    """How images are stored."""

    format: Literal["jpg", "png", "webp"] = "jpg"
    """A grey JPEG that needs no change is stored as it is; anything else is encoded in this format. PNG
    and WebP lose nothing."""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """JPEG quality."""
    max_height: Count = 0
    """Taller images are scaled down to this many pixels; 0 keeps every size. Never scaled up."""
    trim: bool = False
    """Cut off rows and columns at the edges that are of one level, and thin bright frames."""
    leave_out_suspects: tuple[Suspect, ...] = ()
    """Pictures that look like these are left out, such as ["mask", "nir"]: `mask` (few levels), `overlay`
    (colour on a scan), `composite` (two pictures side by side), `nir` (en-face), `photo` (of the fundus).
    Empty: they are kept, counted, and shown on quality.html."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Split:
    """Parts by patient; where no patient is known by volume, and by image where no volume is known either."""

    fractions: Parts = (0.0, 0.0, 0.0)
    """Shares of train, val and test, such as [0.6, 0.2, 0.2]; all zero: no split but the source's own."""
    seed: Count = 0
    """Which patient falls where is a function of this seed."""
    unknown_patient: Literal["volume", "image"] = "volume"
    """Images whose patient is not known: `volume` keeps slices of one volume (as a list, a device file or
    the files' names tell) and a folder below a class folder in one part; `image` parts every image alone."""

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
    """Where the shards go."""

    url: str
    """Path or URL of the shard set."""
    name: str = "oct"
    """Shards are called NAME-000000.tar and so on."""
    shard_mb: PositiveFloat = 64.0
    """Aimed size of a shard in MB (10^6 bytes)."""
    seed: Count = 0
    """Samples are shuffled over shards by this seed, so that neighbours in a volume spread out."""
    bad_sample_budget: Count = 100
    """Unreadable images left out (and named) before packing stops with an error."""
    workers: Count = 0
    """Processes that decode and encode; 0: one for each core."""
    names_table: str = ""
    """Local file for the names behind digests, readable by you alone, never in the set; empty:
    `~/.local/share/retfound/names/NAME-<digest of out.url>.csv`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PackConfig:
    """`retfound pack`: images to shards."""

    out: PackOut
    source: Source = field(default_factory=Source)
    sources: tuple[Source, ...] = ()
    """Several sources in one set; `source` is then left out."""
    root: str = ""
    """Folder below which relative paths of the sources lie; empty: the current one."""
    phantom: Phantom = field(default_factory=Phantom)
    image: PackImage = field(default_factory=PackImage)
    split: Split = field(default_factory=Split)

    @model_validator(mode="after")
    def _one_way(self) -> PackConfig:
        if self.sources and self.source != Source():
            raise ValueError("source and sources are both given: keep one of them")
        return self

    @property
    def all_sources(self) -> tuple[Source, ...]:
        """The one source, or the several."""
        return self.sources or (self.source,)
