"""The changes that each disease makes in a generated eye.

A lesion is three-dimensional: it is drawn once for a volume. Each B-scan is a section through it at `y`.
Shapes: `W` columns, `K` layers, `N` ellipsoids. Lateral sizes in mm, heights in micrometres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter1d

from shards.sources.phantom.eye import LAYERS, Floats, Waves

RNFL, GCL, IPL, INL, OPL, ONL, MYOID, EZ, OS, FLUID, RPE, SUBRPE = range(len(LAYERS))
REACH = 0.72
"""Distance of the outermost B-scan from the lesion's centre, in lesion radii: it still shows the lesion."""


@dataclass
class Blob:
    """An ellipsoid of one grey within the retina: a cyst, an exudate."""

    x: float
    """Centre, mm from the fovea."""
    layer: int
    """The layer whose middle is the centre's depth."""
    shift: float
    """Centre below that middle, micrometres."""
    rx: float
    """Half-width at this B-scan, mm."""
    rz: float
    """Half-height at this B-scan, micrometres."""
    grey: float
    """Display grey inside."""
    shadow: float = 0.0
    """Grey levels lost below."""


@dataclass
class LesionSection:
    """One B-scan through a lesion: the changed layers, and what is painted over them."""

    thick_KW: Floats
    grey_KW: Floats
    blobs: list[Blob] = field(default_factory=list)
    hole: Callable[[Floats, Floats], Floats] | None = None
    """Micrometres inside the hole (positive) at `x` mm and fractional height in the retina."""
    window_W: Floats | None = None
    """Grey levels gained below the RPE where atrophy lets light through."""


@dataclass(frozen=True)
class Lesion:
    """A disease in one eye."""

    extent: float
    """The volume's B-scans lie at |y| <= extent, mm."""
    lift: float
    """How far the retina rises at most, micrometres."""
    pit: float
    """Remaining depth of the foveal pit, 0 to 1."""
    deform: Callable[[LesionSection, Floats, float], None]
    """Changes a healthy section, with its columns at x mm, into the lesion's section at y mm."""


def dome(x_W: Floats, y: float, centre: tuple[float, float], radius: tuple[float, float]) -> Floats:
    """Squared-distance dome of height 1 at its centre and 0 beyond its rim, shape (W,)."""
    inside_W = ((x_W - centre[0]) / radius[0]) ** 2 + ((y - centre[1]) / radius[1]) ** 2
    return np.asarray(np.maximum(1.0 - inside_W, 0.0), np.float32)


def smooth_lift(section: LesionSection, lift_W: Floats, x_W: Floats, reach: float, rest: float) -> None:
    """Thins and thickens the ONL so that the inner retina rises smoothly over a lift of `lift_W`.

    It follows `rest` of the lift, blurred over `reach` mm.
    """
    smooth_W = gaussian_filter1d(lift_W, reach / float(x_W[1] - x_W[0]), mode="nearest")
    section.thick_KW[ONL] -= np.clip(lift_W - rest * smooth_W, -40.0, 0.65 * section.thick_KW[ONL])


def draw_lesion(label: str, rng: np.random.Generator) -> Lesion:
    """The lesion that defines `label`, drawn in size, severity and place."""
    return _DRAW_LESION[label](rng)


def _draw_normal(rng: np.random.Generator) -> Lesion:
    """Draws a healthy eye: nothing deforms the layers."""

    def deform(section: LesionSection, x_W: Floats, y: float) -> None:
        """Nothing to change."""

    return Lesion(extent=rng.uniform(0.3, 0.8), lift=0.0, pit=rng.uniform(0.85, 1.0), deform=deform)


def _hole(rng: np.random.Generator) -> Lesion:
    """Macular hole: a gap through the whole retina, its edges swollen with cysts."""
    radius, flare = rng.uniform(0.2, 0.42), rng.uniform(0.25, 0.9)
    cuff, reach = rng.uniform(30.0, 120.0), rng.uniform(0.35, 0.7)
    centre = rng.normal(0.0, 0.04)
    cysts = [
        (side, rng.uniform(0.05, 0.55), rng.choice([INL, ONL, OPL]), rng.uniform(0.03, 0.11),
         rng.uniform(14.0, 44.0), rng.uniform(0.0, 6.28))
        for side in (-1, 1) for _ in range(rng.integers(3, 8))
    ]  # fmt: skip
    grey, wall = rng.uniform(8.0, 34.0), Waves.draw(rng, length=0.5, scale=0.14)
    lean = rng.uniform(-0.12, 0.12)

    def deform(section: LesionSection, x_W: Floats, y: float) -> None:
        # Never negative: B-scans end at REACH of the radius.
        half = float(np.sqrt(radius**2 - y**2))
        edge_W = np.maximum(np.hypot(x_W - centre, y) - radius, 0.0)
        swell_W = np.exp(-((edge_W / reach) ** 2)).astype(np.float32)
        section.thick_KW[INL] += 0.4 * cuff * swell_W
        section.thick_KW[ONL] += 0.6 * cuff * swell_W
        fade_W = np.exp(-((edge_W / 0.25) ** 2))
        section.grey_KW[EZ] -= 95.0 * fade_W
        section.grey_KW[OS] -= 50.0 * fade_W
        for side, away, layer, rx, rz, phase in cysts:
            size = 0.75 + 0.25 * np.sin(phase + 9.0 * y)
            x = centre + side * (half * (1.0 + 0.5 * flare) + away)
            section.blobs.append(Blob(x, layer, 0.0, rx * size, rz * size, grey))

        def inside(x_HW: Floats, t_HW: Floats) -> Floats:
            lip_HW = np.clip((t_HW - 0.7) / 0.3, 0.0, 1.0) ** 3
            height = np.linspace(0.0, 1.0, 24, dtype=np.float32)
            uneven_HW = np.where(
                x_HW < centre,
                np.interp(t_HW, height, wall(height, y)),
                np.interp(t_HW, height, wall(height + 5.0, y)),
            )
            wide_HW = half * (1.0 + flare * ((t_HW - 0.5) / 0.5) ** 2) + 0.22 * lip_HW
            wide_HW = wide_HW * (1.0 + np.clip(uneven_HW, -0.3, 0.3))
            return np.asarray(1000.0 * (wide_HW - np.abs(x_HW - centre - lean * t_HW)), np.float32)

        section.hole = inside

    return Lesion(extent=REACH * radius, lift=cuff, pit=0.25, deform=deform)


def _serous(rng: np.random.Generator) -> Lesion:
    """Central serous chorioretinopathy: clear fluid lifts the retina off the RPE in a dome."""
    extent = rng.uniform(0.3, 1.0)
    height, radius = rng.uniform(100.0, 300.0), rng.uniform(0.7, 1.8)
    centre = (float(np.clip(rng.normal(0.0, 0.7), -1.6, 1.6)), rng.uniform(-0.15, 0.15) * extent)
    across = (extent + abs(centre[1])) / REACH
    power, shaggy = rng.uniform(0.75, 1.3), rng.uniform(4.0, 22.0)
    grey = rng.uniform(2.0, 20.0)
    fringe = Waves.draw(rng, length=0.09, scale=1.0, n=16)
    has_ped, ped_x = rng.random() < 0.35, centre[0] + rng.normal(0.0, 0.4) * radius
    ped_size = (rng.uniform(0.12, 0.3), rng.uniform(30.0, 80.0))

    def deform(section: LesionSection, x_W: Floats, y: float) -> None:
        bump_W = dome(x_W, y, centre, (radius, across))
        section.thick_KW[FLUID] += height * bump_W**power
        smooth_lift(section, section.thick_KW[FLUID], x_W, 0.3, 0.9)
        section.grey_KW[FLUID] = grey
        over_W = np.minimum(4.0 * bump_W, 1.0)
        shag_W = over_W * np.maximum(6.0 + shaggy * (0.6 + 0.6 * fringe(x_W, y)), 0.0)
        # The fringe of outer segments hangs into the fluid and must not fill it.
        shag_W = np.minimum(shag_W, 0.35 * section.thick_KW[FLUID])
        section.thick_KW[OS] += shag_W
        section.thick_KW[FLUID] -= shag_W
        section.grey_KW[OS] -= 25.0 * over_W
        section.grey_KW[EZ] -= 45.0 * over_W
        if has_ped:
            small_W = dome(x_W, y, (ped_x, centre[1]), (ped_size[0], 0.8 * across))
            section.thick_KW[SUBRPE] += ped_size[1] * small_W
            section.thick_KW[FLUID] = np.maximum(section.thick_KW[FLUID] - ped_size[1] * small_W, 0.0)

    return Lesion(extent=extent, lift=height, pit=rng.uniform(0.6, 1.0), deform=deform)


def _drusen(rng: np.random.Generator) -> Lesion:
    """Age-related degeneration: drusen, and in half the eyes a large pigment-epithelium detachment.

    The first few deposits run through the whole volume, so that every B-scan cuts some.
    """
    extent, detached = rng.uniform(0.4, 1.3), rng.random() < 0.5
    n, through = rng.integers(6, 26), 1 if detached else rng.integers(3, 6)
    spread, middle = rng.uniform(0.7, 1.9), rng.normal(0.0, 0.4)
    xs, ys = rng.normal(middle, spread, n), rng.uniform(-extent, extent, n)
    # Within 1.8 mm: the narrowest image shows 2.4 mm at either side of the fovea, and each shall show some.
    xs[:through], ys[:through] = np.clip(xs[:through], -1.8, 1.8), 0.2 * ys[:through]
    rx, ry = rng.uniform(0.11, 0.42, n), rng.uniform(0.1, 0.4, n)
    ry[:through] = 1.25 * extent / REACH
    high = rng.uniform(18.0, 60.0, n)
    high[:through] = rng.uniform(60.0, 100.0, through)
    if detached:
        rx[0], high[0] = rng.uniform(0.35, 1.0), rng.uniform(110.0, 290.0)
        xs[0] = float(np.clip(rng.normal(0.0, 0.6), -1.8, 1.8))
    content = rng.uniform(28.0, 95.0) if detached else rng.uniform(90.0, 130.0)
    rough = Waves.draw(rng, length=0.12, scale=3.0, n=16)
    atrophy = (rng.normal(0.0, 0.9), rng.uniform(0.2, 0.7), 50.0 * (rng.random() < 0.4))

    def deform(section: LesionSection, x_W: Floats, y: float) -> None:
        bumps = [high[i] * dome(x_W, y, (xs[i], ys[i]), (rx[i], ry[i])) for i in range(n)]
        lift_W = np.max(bumps, axis=0) + np.maximum(rough(x_W, y), 0.0)
        over_W = np.minimum(lift_W / 50.0, 1.0)
        section.thick_KW[SUBRPE] += lift_W
        section.grey_KW[SUBRPE] = content
        smooth_lift(section, lift_W, x_W, 0.22, 0.7)
        section.grey_KW[EZ] -= 60.0 * over_W
        gap_W = dome(x_W, y, (atrophy[0], 0.0), (atrophy[1], 2.0)) * (1.0 + 0.15 * rough(x_W, y))
        section.window_W = np.asarray(atrophy[2] * gap_W, np.float32)
        section.thick_KW[EZ] *= 1.0 - 0.8 * gap_W * (atrophy[2] > 0)

    return Lesion(extent=extent, lift=float(high.max()), pit=rng.uniform(0.6, 1.0), deform=deform)


def _cysts(rng: np.random.Generator) -> Lesion:
    """Diabetic macular oedema: swelling, dark cysts in INL and ONL, bright foci and exudates."""
    extent, swell = rng.uniform(0.3, 1.2), rng.uniform(40.0, 200.0)
    middle, wide = rng.normal(0.0, 0.6), rng.uniform(0.6, 1.5)
    n, through, foci = rng.integers(9, 26), rng.integers(4, 8), rng.integers(8, 30)
    xs = rng.normal(middle, 0.45 * wide, n + foci)
    ys = rng.uniform(-extent, extent, n + foci)
    ry = rng.uniform(0.15, 0.5, n + foci) * extent
    xs[:through], ys[:through] = np.clip(xs[:through], -1.8, 1.8), 0.15 * ys[:through]
    ry[:through] = 1.25 * extent / REACH
    rx = np.concatenate([rng.gamma(3.0, 0.055, n) + 0.05, rng.gamma(2.0, 0.010, foci) + 0.01])
    rz = np.concatenate([rng.uniform(0.4, 0.65, n), rng.uniform(7.0, 18.0, foci)])
    layer = np.concatenate([rng.choice([INL, ONL, ONL], n), rng.choice([INL, OPL, ONL], foci)])
    layer[:2] = INL, ONL
    shift, dark = rng.normal(0.0, 6.0, n + foci), rng.uniform(6.0, 26.0)
    shine, opaque = rng.uniform(165.0, 225.0, foci), 25.0 * (rng.random() < 0.4)

    def deform(section: LesionSection, x_W: Floats, y: float) -> None:
        near_W = np.exp(-((x_W - middle) ** 2 + y * y) / wide**2)
        for k, part in ((INL, 0.35), (OPL, 0.15), (ONL, 0.5)):
            section.thick_KW[k] += (part * swell + (12.0 if k != OPL else 0.0)) * near_W
        for i in range(n + foci):
            remaining = 1.0 - ((y - ys[i]) / ry[i]) ** 2
            if remaining <= 0.0:
                continue
            if i < n:
                thickness = float(np.interp(xs[i], x_W, section.thick_KW[layer[i]]))
                section.blobs.append(Blob(xs[i], layer[i], 0.3 * shift[i], rx[i] * remaining**0.5,
                                     rz[i] * thickness * remaining**0.5, dark))  # fmt: skip
            else:
                section.blobs.append(Blob(xs[i], layer[i], 3 * shift[i], rx[i] * remaining**0.5,
                                     rz[i] * remaining**0.5, shine[i - n], opaque))  # fmt: skip

    return Lesion(extent=extent, lift=swell, pit=rng.uniform(0.4, 0.9), deform=deform)


_DRAW_LESION = {"NORMAL": _draw_normal, "MH": _hole, "AMRD": _drusen, "CSR": _serous, "DR": _cysts}
