"""Paints a section through an eye as display greys without noise: layers, choroid, vessels, lesions.

Shapes: `H` rows, `W` columns, `K` layers. A display grey is the logarithm of reflectivity, so attenuation
subtracts grey. Depths in micrometres, lateral positions in mm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from shards.sources.phantom.eye import STREAM_TEXTURE, Floats, Waves, keyed_rng
from shards.sources.phantom.lesions import MYOID, RPE, Blob, LesionSection


@dataclass(frozen=True)
class PixelGrid:
    """The positions of the pixels."""

    x_W: Floats
    """Columns, mm from the fovea."""
    z_H1: Floats
    """Rows, micrometres from the top."""
    soft: float
    """Width of an edge, micrometres: no thinner than a pixel."""
    y: float
    """Position of the B-scan, mm from the fovea."""


@dataclass(frozen=True)
class Vessels:
    """Retinal vessels (straight lines seen from above) and the eye's vitreous and choroid."""

    crossings: tuple[tuple[float, float, float, float], ...]
    """Each vessel's x at y = 0 (mm), slope, radius (mm) and shadow (grey levels)."""
    hyaloid: tuple[float, float, float]
    """Posterior vitreous face: gap over the fovea, its growth per mm squared, grey; 0 is none."""
    haze: float
    """Grey levels of cloud in the vitreous."""
    choroid: float
    """Thickness, micrometres."""
    slope: float
    """Grey lost per micrometre below the RPE."""
    lumen: float
    """Contrast of the choroid's vessels, grey levels."""
    grain: float
    """Size of the choroid's vessels relative to the average eye."""
    under: Waves
    """Unevenness of the choroid's lower face, micrometres."""
    streak: Waves
    """Uneven light below the retina, column by column, grey levels."""
    gain: Waves
    """Brightness along the B-scan, grey levels."""


def draw_vessels(rng: np.random.Generator) -> Vessels:
    """Draws vessels that avoid the fovea's avascular zone (0.5 mm) at y = 0."""
    side = rng.choice([-1.0, 1.0], rng.integers(4, 11))
    crossings = tuple(
        (float(s * rng.uniform(0.6, 4.5)), rng.normal(0.0, 0.25), rng.uniform(0.010, 0.04),
         rng.uniform(8.0, 26.0) + 30.0 * rng.random() ** 4) for s in side
    )  # fmt: skip
    return Vessels(
        crossings=crossings,
        hyaloid=(rng.uniform(5.0, 150.0), rng.uniform(3.0, 18.0), 42.0 * (rng.random() < 0.4)),
        haze=rng.uniform(2.0, 14.0) * (rng.random() < 0.35),
        choroid=rng.uniform(130.0, 380.0),
        slope=rng.uniform(0.08, 0.17),
        lumen=rng.uniform(22.0, 46.0),
        grain=rng.uniform(0.8, 1.3),
        under=Waves.draw(rng, length=1.2, scale=22.0),
        streak=Waves.draw(rng, length=0.1, scale=rng.uniform(0.5, 2.2), n=48),
        gain=Waves.draw(rng, length=1.6, scale=8.0),
    )


def ramp(height: Floats, soft: float) -> Floats:
    """Returns 0 above an edge and 1 below it, linear over `soft`."""
    return np.asarray(np.clip(height * np.float32(1.0 / soft) + 0.5, 0.0, 1.0), np.float32)


def edges(thick_KW: Floats, bruch_W: Floats) -> Floats:
    """Returns the depths of the layers' upper faces and of Bruch's membrane, shape (K + 1, W)."""
    below_KW = np.cumsum(thick_KW[::-1], axis=0)[::-1]
    return np.vstack([bruch_W - below_KW, bruch_W[None]]).astype(np.float32)


def texture(key: tuple[int, int, int], channel: int, y: float, cells: tuple[int, int]) -> Floats:
    """Draws standard-normal noise of shape `cells` that changes smoothly with `y` (mm).

    Grids 0.12 mm apart in y are drawn independently, and the two nearest are blended with constant variance.
    `key`: seed, patient and eye. `channel`: another one gives independent noise.
    """
    seed, patient, eye = key
    knot = math.floor(y / 0.12)
    angle = (y / 0.12 - knot) * math.pi / 2
    # Plus 1000, because y may be negative and a key may not.
    first, second = (
        keyed_rng(seed, STREAM_TEXTURE, patient, eye, channel, 1000 + k).standard_normal(
            cells, dtype=np.float32
        )
        for k in (knot, knot + 1)
    )
    # cos^2 + sin^2 = 1, so the blend keeps the variance and no B-scan looks smoother.
    return np.asarray(math.cos(angle) * first + math.sin(angle) * second, np.float32)


def grain(
    grid: PixelGrid, d_HW: Floats, key: tuple[int, int, int], channel: int, cell: tuple[float, float]
) -> Floats:
    """Draws smooth standard-normal noise (H, W), bilinear between cells of `cell` (micrometres, mm).

    Rows begin at depth 0 of `d_HW`, so that the texture follows that surface.
    """
    noise_grid = texture(key, channel, grid.y, (48, int(13.5 / cell[1])))
    # Blurring by 1.1 cells leaves 1 / (2 sqrt(pi) 1.1) = 1/3.9 of the standard deviation.
    noise_grid = gaussian_filter(noise_grid, 1.1, mode="nearest") * np.float32(3.9)
    at_W = np.clip((grid.x_W + 6.75) / cell[1], 0.0, noise_grid.shape[1] - 1.01).astype(np.float32)
    left_W = at_W.astype(np.intp)
    part_W = at_W - left_W.astype(np.float32)
    grid_RW = noise_grid[:, left_W] * (1.0 - part_W) + noise_grid[:, left_W + 1] * part_W
    row_HW = np.clip(d_HW / np.float32(cell[0]), 0.0, noise_grid.shape[0] - 1.01)
    top_HW = row_HW.astype(np.intp)
    part_HW = row_HW - top_HW.astype(np.float32)
    flat_HW = top_HW * len(at_W) + np.arange(len(at_W))
    upper_HW, lower_HW = grid_RW.ravel()[flat_HW], grid_RW.ravel()[flat_HW + len(at_W)]
    return np.asarray(upper_HW + part_HW * (lower_HW - upper_HW), np.float32)


def choroid(grid: PixelGrid, vessels: Vessels, bruch_W: Floats, key: tuple[int, int, int]) -> Floats:
    """Paints the greys below Bruch's membrane, (H, W): capillaries, small and large vessels, sclera."""
    d_HW = grid.z_H1 - bruch_W
    deep_HW = np.clip((d_HW - 25.0) / 110.0, 0.0, 1.0)
    large_HW = grain(grid, d_HW, key, 0, (30.0 * vessels.grain, 0.062 * vessels.grain))
    small_HW = grain(grid, d_HW, key, 1, (10.0 * vessels.grain, 0.022 * vessels.grain))
    mix_HW = large_HW * (0.3 + 0.7 * deep_HW) + small_HW * (0.8 - 0.55 * deep_HW)
    thick_W = vessels.choroid + vessels.under(grid.x_W, grid.y)
    within_HW = ramp(thick_W - d_HW, 45.0) * np.clip((d_HW - 8.0) / 45.0, 0.0, 1.0)
    lumen_HW = (np.tanh(1.1 * mix_HW) - 0.15) * within_HW
    grey_HW = 106.0 - vessels.slope * np.maximum(d_HW, 0.0)
    grey_HW += 34.0 * np.exp(-np.maximum(d_HW, 0.0) / 16.0)
    return np.asarray(grey_HW + (0.5 * vessels.lumen + 6.0 * deep_HW) * lumen_HW, np.float32)


def paint_layers(grid: PixelGrid, section: LesionSection, edge_KW: Floats, below_HW: Floats) -> Floats:
    """Paints the layers with soft edges, 0 above them and `below_HW` under Bruch's membrane."""
    grey_HW = np.zeros_like(below_HW)
    above = np.zeros_like(edge_KW[0])
    for k, grey_W in enumerate(section.grey_KW):
        grey_HW += (grey_W - above) * ramp(grid.z_H1 - edge_KW[k], grid.soft)
        above = grey_W
    grey_HW += (below_HW - above) * ramp(grid.z_H1 - edge_KW[-1], grid.soft)
    for depth_W, gain in ((edge_KW[0] + 3.0, 22.0), (edge_KW[MYOID], 22.0), (edge_KW[-1], 20.0)):
        away_HW = (grid.z_H1 - depth_W) / np.float32(max(grid.soft, 6.0))
        grey_HW += gain * np.maximum(1.0 - away_HW * away_HW, 0.0)
    return grey_HW


def paint_blob(grey_HW: Floats, grid: PixelGrid, edge_KW: Floats, blob: Blob, rough_HW: Floats) -> None:
    """Blends one cyst or exudate into `grey_HW` in place, within the retina.

    `rough_HW`, standard-normal, makes its outline uneven.
    """
    lo, hi = np.searchsorted(grid.x_W, (blob.x - 1.1 * blob.rx, blob.x + 1.1 * blob.rx))
    lo, hi = max(int(lo) - 1, 0), min(int(hi) + 1, len(grid.x_W))
    if hi - lo < 1 or blob.x < grid.x_W[0] or blob.x > grid.x_W[-1]:
        return
    middle_W = edge_KW[blob.layer : blob.layer + 2, lo:hi].mean(axis=0) + np.float32(blob.shift)
    apart_HW = np.hypot((grid.x_W[lo:hi] - blob.x) / blob.rx, (grid.z_H1 - middle_W) / max(blob.rz, 1.0))
    apart_HW = apart_HW + 0.16 * rough_HW[:, lo:hi]
    rim = 0.5 * grid.soft / max(blob.rz, grid.soft)
    cover_HW = np.clip((1.0 + rim - apart_HW) / (2.0 * rim), 0.0, 1.0)
    cover_HW *= ramp(edge_KW[MYOID, lo:hi] - grid.z_H1, grid.soft)
    cover_HW *= ramp(grid.z_H1 - edge_KW[0, lo:hi] - 15.0, grid.soft)
    part_HW = grey_HW[:, lo:hi]
    part_HW += cover_HW * (blob.grey - part_HW)
    if blob.shadow:
        wide_W = np.clip(1.5 - 1.2 * np.abs(grid.x_W[lo:hi] - blob.x) / blob.rx, 0.0, 1.0)
        part_HW -= blob.shadow * wide_W * ramp(grid.z_H1 - middle_W - blob.rz, grid.soft)


def paint_vessels(grey_HW: Floats, grid: PixelGrid, vessels: Vessels, edge_KW: Floats) -> None:
    """Paints bright spots in the inner retina and their dark shadows, in place."""
    pixel = float(grid.x_W[1] - grid.x_W[0])
    for x0, slope, radius, shade in vessels.crossings:
        x, half = x0 + slope * grid.y, max(radius, 0.5 * pixel)
        lo, hi = np.searchsorted(grid.x_W, (x - 2.5 * half, x + 2.5 * half))
        if hi <= lo:
            continue
        away_W = np.abs(grid.x_W[lo:hi] - x) / half
        depth_HW = grid.z_H1 - edge_KW[0, lo:hi] - 28.0
        spot_HW = np.maximum(1.0 - away_W**2 - (depth_HW / (900.0 * radius)) ** 2, 0.0)
        stripe_W = np.exp(-(away_W**2)) * min(radius / half, 1.0)
        grey_HW[:, lo:hi] += 1.2 * shade * spot_HW
        grey_HW[:, lo:hi] -= shade * stripe_W * ramp(depth_HW - 40.0, 60.0)


def paint_vitreous(grid: PixelGrid, vessels: Vessels, bruch_W: Floats) -> Floats:
    """Paints the vitreous, (H, W): the posterior face as a thin line, and haze above it."""
    gap, growth, line = vessels.hyaloid
    r2_W = grid.x_W**2 + grid.y**2
    face_W = bruch_W - 340.0 - gap - growth * r2_W
    away_HW = grid.z_H1 - face_W
    thin_HW = np.maximum(1.0 - (away_HW / np.float32(max(grid.soft, 9.0))) ** 2, 0.0)
    return np.asarray(line * thin_HW + vessels.haze * ramp(-away_HW, 150.0), np.float32)


def paint(
    grid: PixelGrid,
    section: LesionSection,
    vessels: Vessels,
    bruch_W: Floats,
    disc: tuple[Floats, Floats],
    key: tuple[int, int, int],
) -> Floats:
    """Paints the whole B-scan as display greys without noise, shape (H, W)."""
    edge_KW = edges(np.maximum(section.thick_KW, 0.0), bruch_W)
    disc_W, cup_W = disc
    # Negative values raise the rim in all columns; positive ones deepen only the disc.
    edge_KW[0] += np.where(cup_W < 0.0, cup_W, disc_W * cup_W)
    below_HW = choroid(grid, vessels, bruch_W, key)
    if section.window_W is not None:
        below_HW += section.window_W
    grey_HW = paint_layers(grid, section, edge_KW, below_HW)
    rough_HW = grain(grid, grid.z_H1 - edge_KW[0], key, 2, (11.0, 0.03))
    for blob in section.blobs:
        paint_blob(grey_HW, grid, edge_KW, blob, rough_HW)
    fibre_HW = 142.0 - 0.12 * np.maximum(grid.z_H1 - edge_KW[0] - 60.0, 0.0)
    grey_HW += disc_W * (fibre_HW * ramp(grid.z_H1 - edge_KW[0], grid.soft) - grey_HW)
    paint_vessels(grey_HW, grid, vessels, edge_KW)
    vitreous_HW = paint_vitreous(grid, vessels, bruch_W)
    tissue_HW = ramp(grid.z_H1 - edge_KW[0], grid.soft)
    if section.hole is not None:
        t_HW = (edge_KW[RPE] - grid.z_H1) / (edge_KW[RPE] - edge_KW[0])
        inside_HW = ramp(section.hole(grid.x_W, np.clip(t_HW, 0.0, 1.0)) + 15.0 * rough_HW, 25.0)
        open_HW = inside_HW * ramp(edge_KW[RPE] - grid.z_H1, grid.soft)
        grey_HW *= 1.0 - open_HW
    shaded_HW = 0.3 + 0.7 * ramp(grid.z_H1 - edge_KW[RPE], 200.0)
    streak_W = vessels.streak(grid.x_W, grid.y)
    gain_W = vessels.gain(grid.x_W, grid.y)
    grey_HW += tissue_HW * (gain_W + streak_W * shaded_HW + 5.0 * rough_HW)
    return np.asarray(np.maximum(grey_HW, (1.0 - tissue_HW) * vitreous_HW), np.float32)
