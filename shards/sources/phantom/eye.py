"""The healthy eye of a generated OCT volume: its geometry, scanner and layer thicknesses.

Shapes: `W` columns (A-scans) of the image, `K` layers, `N` waves. Lateral positions are in mm
from the fovea (`x` along the B-scan, `y` across the B-scans), depths in micrometres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]

LAYERS = (
    "RNFL", "GCL", "IPL", "INL", "OPL", "ONL", "MYOID", "EZ", "OS", "FLUID", "RPE", "SUBRPE",
)  # fmt: skip
"""From the vitreous down; `MYOID` starts at the external limiting membrane. `FLUID` (under the
retina) and `SUBRPE` (drusen, detachments) have no thickness in a healthy eye."""

GREYS = (172.0, 124.0, 131.0, 90.0, 119.0, 66.0, 82.0, 188.0, 152.0, 8.0, 216.0, 100.0)
"""Display grey of each layer, read off the mean depth profile of OCTDL's normal scans."""

STREAM_LIST, STREAM_SCANNER, STREAM_EYE, STREAM_VESSELS, STREAM_LESION = range(5)
STREAM_TEXTURE, STREAM_SPECKLE = 5, 6


def keyed_rng(seed: int, stream: int, *index: int) -> np.random.Generator:
    """Returns a generator that depends only on its key, not on earlier draws."""
    # Philox, as for crops and masks, because any process can then repeat a draw.
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, *index))
    return np.random.Generator(np.random.Philox(sequence))


@dataclass(frozen=True)
class Waves:
    """A smooth random surface over (x, y): a sum of `N` cosines of standard deviation `scale`."""

    kx_N: Floats
    ky_N: Floats
    phase_N: Floats
    scale: float

    @staticmethod
    def draw(rng: np.random.Generator, *, length: float, scale: float, n: int = 10) -> Waves:
        """Draws waves whose features are some `length` mm wide."""
        kx_N, ky_N = rng.normal(0.0, 1.6 / length, (2, n)).astype(np.float32)
        phase_N = rng.uniform(0.0, 2 * np.pi, n).astype(np.float32)
        # Cosines of amplitude a have a variance of n a^2 / 2: this makes it `scale` squared.
        return Waves(kx_N, ky_N, phase_N, scale * float(np.sqrt(2.0 / n)))

    def __call__(self, x_W: Floats, y: float) -> Floats:
        """Returns heights (W,) along the B-scan at `y`."""
        angle_NW = self.kx_N[:, None] * x_W + (self.ky_N * y + self.phase_N)[:, None]
        return np.asarray(self.scale * np.cos(angle_NW).sum(axis=0), np.float32)


@dataclass(frozen=True)
class Eye:
    """Geometry and anatomy that all B-scans of one volume share."""

    nasal: float
    """+1 where the nasal side (optic disc) is at the right of the image, else -1."""
    field: float
    """Width of the image, mm."""
    depth: float
    """Height of the image, micrometres."""
    fovea: float
    """Position of the fovea, mm to the right of the middle of the image."""
    base: float
    """Depth of Bruch's membrane at the fovea, micrometres from the top of the image."""
    tilt: float
    """Slope of the retina, micrometres per mm."""
    bow: float
    """Curvature of the retina, micrometres per mm squared; its edges lie higher."""
    sway: float
    """Change of the tilt across the B-scans, micrometres per mm squared."""
    pit: float
    """Radius of the foveal pit, mm."""
    disc: float
    """Distance from the fovea to the optic disc's rim, mm."""
    cup: float
    """Depth of the disc's cup below its rim, micrometres."""
    scale_K: Floats
    """Thickness of each layer relative to the population's."""
    undulation: Waves
    """Bending of the whole retina, micrometres."""
    surface: Waves
    """Unevenness of the inner surface, micrometres."""
    mottle: tuple[Waves, ...]
    """Brightness along each layer, grey levels."""


def draw_eye(seed: int, patient: int, eye: int, *, lift: float) -> Eye:
    """Draws the eye of index `eye` (0 right, 1 left); `lift`: height that a lesion needs, micrometres."""
    rng = keyed_rng(seed, STREAM_EYE, patient, eye)
    field, depth = rng.uniform(7.0, 10.5), rng.uniform(1250.0, 1650.0)
    # Deep enough for a healthy retina (some 390 micrometres) and what a lesion lifts above it.
    base = max(depth * rng.uniform(0.48, 0.68), 390.0 + lift)
    return Eye(
        nasal=1.0 if eye == 0 else -1.0,
        field=field,
        depth=depth,
        fovea=field * rng.uniform(-0.16, 0.16),
        base=base,
        tilt=rng.normal(0.0, 28.0),
        bow=rng.uniform(4.0, 22.0),
        sway=rng.normal(0.0, 6.0),
        pit=rng.uniform(0.5, 0.9),
        disc=rng.uniform(3.3, 4.6),
        cup=rng.uniform(100.0, 420.0),
        scale_K=rng.normal(1.0, 0.07, len(LAYERS)).astype(np.float32) * rng.uniform(0.9, 1.1),
        undulation=Waves.draw(rng, length=2.5, scale=6.0),
        surface=Waves.draw(rng, length=0.5, scale=2.0),
        mottle=tuple(Waves.draw(rng, length=0.3, scale=6.0) for _ in LAYERS),
    )


def columns(eye: Eye, width: int) -> Floats:
    """Returns the positions of the image's columns, mm from the fovea, shape (W,)."""
    x_W = (np.arange(width, dtype=np.float32) + 0.5) / width * eye.field - eye.field / 2
    return (x_W - eye.fovea).astype(np.float32)


def thicknesses(eye: Eye, x_W: Floats, y: float, *, pit: float = 1.0) -> Floats:
    """Returns the healthy thickness of each of the LAYERS in micrometres, shape (K, W).

    The round numbers were set by eye until the profiles looked like OCTDL's normal scans. They are not a
    medical norm. `x_W` and `y`: mm from the fovea. `pit`: 1 keeps the foveal pit, 0 fills it.
    """
    r_W = np.hypot(x_W, y)
    rim_W = 1.0 - pit * np.exp(-((r_W / eye.pit) ** 1.7))
    centre_W = np.exp(-((r_W / 0.8) ** 2))
    bulge_W = np.exp(-((r_W / 0.28) ** 2))
    nasal_W = np.clip(x_W * eye.nasal - 0.4, 0.0, 4.5)
    far_W = np.clip(-x_W * eye.nasal, 0.0, 4.5)
    inner_W = 0.45 + 0.55 * np.exp(-(((r_W - 0.9) / 1.7) ** 2))
    zero_W = np.zeros_like(x_W)
    # One line for each of the LAYERS.
    thick_KW = np.stack([
        rim_W * (13.0 + 12.0 * nasal_W + 2.5 * far_W + 5.0 * abs(y)) + 0.4 * eye.surface(x_W, y),
        rim_W * (56.0 * inner_W + eye.surface(x_W, y)),
        3.0 + 42.0 * rim_W * inner_W,
        3.0 + 36.0 * rim_W,
        6.0 + 22.0 * rim_W,
        62.0 + 22.0 * pit * centre_W - 2.5 * r_W,
        24.0 + 8.0 * bulge_W,
        14.0 + zero_W,
        19.0 + 11.0 * bulge_W,
        zero_W,
        22.0 + zero_W,
        zero_W,
    ])  # fmt: skip
    uneven_KW = np.stack([1.0 + 0.007 * w(x_W + 9.0, y) for w in eye.mottle])
    return np.maximum(thick_KW * eye.scale_K[:, None] * uneven_KW, 0.0).astype(np.float32)


def optic_disc(eye: Eye, x_W: Floats, y: float) -> tuple[Floats, Floats]:
    """Returns how much each column belongs to the optic disc, 0 to 1, and the depth of its cup; (W,) both.

    The disc is a circle of radius 0.85 mm at the height of the fovea; the cup is in micrometres
    below the inner surface, which rises into the rim.
    """
    # Half of the disc's width at this B-scan; 0 beyond it.
    chord = float(np.sqrt(max(0.85**2 - y * y, 0.0)))
    beyond_W = x_W * eye.nasal - (eye.disc + 0.85 - chord)
    part_W = min(3.0 * chord, 1.0) / (1.0 + np.exp(-np.clip(beyond_W / 0.05, -30.0, 30.0)))
    cup_W = eye.cup * np.exp(-(((beyond_W - 0.85) / 0.4) ** 2))
    rim_W = 60.0 * np.exp(-(((beyond_W + 0.1) / 0.5) ** 2)) + 50.0 * np.maximum(beyond_W, 0.0)
    return part_W.astype(np.float32), (min(3.0 * chord, 1.0) * (cup_W - rim_W)).astype(np.float32)


def greys(eye: Eye, x_W: Floats, y: float) -> Floats:
    """Returns the display grey of each layer along the B-scan, shape (K, W)."""
    rows = [grey + w(x_W, y) for grey, w in zip(GREYS, eye.mottle, strict=True)]
    return np.stack(rows).astype(np.float32)


def bruch(eye: Eye, x_W: Floats, y: float) -> Floats:
    """Returns the depth of Bruch's membrane, micrometres from the top of the image, shape (W,)."""
    slope = eye.tilt + eye.sway * y
    bent_W = slope * x_W - eye.bow * (x_W**2 + y * y) + eye.undulation(x_W, y)
    return (eye.base + bent_W).astype(np.float32)
