"""What is measured on pictures of the phantom: heights over Bruch's membrane, dark columns, cysts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from shards.sources.phantom.eye import bruch, columns
from shards.sources.phantom.phantom import PhantomScan, draw_anatomy, render

SEED = 5
HEIGHT, WIDTH = 192, 256


def picture(scan: PhantomScan, seed: int | None = None) -> NDArray[np.uint8]:
    return render(scan, seed=SEED if seed is None else seed, height=HEIGHT, width=WIDTH)


def heights(scan: PhantomScan) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Micrometres of each pixel above Bruch's membrane, (H, W), and columns near the fovea, (W,)."""
    anatomy = draw_anatomy(scan, seed=SEED)
    x_W = columns(anatomy.eye, WIDTH)
    z_H1 = ((np.arange(HEIGHT) + 0.5) / HEIGHT * anatomy.eye.depth)[:, None]
    return bruch(anatomy.eye, x_W, anatomy.y) - z_H1, np.abs(x_W) < 2.2


def darkest_column(scan: PhantomScan, low: float, high: float) -> float:
    """Grey between two heights (micrometres): the darkest column's over the bright columns'."""
    up_HW, near_W = heights(scan)
    band_HW = (up_HW > low) & (up_HW < high)
    mean_W = (picture(scan) * band_HW).sum(axis=0) / np.maximum(band_HW.sum(axis=0), 1)
    mean_W = np.convolve(mean_W, np.ones(3) / 3, "same")[near_W]
    return float(mean_W.min() / np.percentile(mean_W, 85))


def brightest_tissue(scan: PhantomScan) -> float:
    """Of all columns the one with least tissue between EZ and IPL: its brightest spot, relative."""
    up_HW, near_W = heights(scan)
    smooth_HW = uniform_filter(picture(scan).astype(np.float32), (5, 3))
    most_W = np.where((up_HW > 30) & (up_HW < 180), smooth_HW, 0.0).max(axis=0)[near_W]
    return float(most_W.min() / np.median(most_W))


def darkest_cyst(scan: PhantomScan) -> float:
    """The darkest spot under brighter tissue, over the mean grey beside it at its own height."""
    up_HW, near_W = heights(scan)
    pixel = up_HW[0, 0] - up_HW[1, 0]
    row_RW = np.rint((up_HW[0] - np.arange(330.0, 80.0, -pixel)[:, None]) / pixel)
    row_RW = np.clip(row_RW, 0, HEIGHT - 1).astype(np.intp)
    flat_RW = np.take_along_axis(picture(scan), row_RW, axis=0)[:, near_W].astype(np.float32)
    spot_RW = uniform_filter(flat_RW, 5, mode="nearest")
    beside_RW = uniform_filter(flat_RW, (5, 41), mode="nearest")
    covered_RW = np.maximum.accumulate(spot_RW, axis=0) > 1.35 * np.median(spot_RW[-8:])
    return float((spot_RW / beside_RW)[covered_RW].min())


def retina_at_fovea(scan: PhantomScan) -> float:
    """Micrometres from Bruch's membrane up to the inner surface, at the fovea."""
    up_HW, _ = heights(scan)
    fovea_W = np.abs(columns(draw_anatomy(scan, seed=SEED).eye, WIDTH)) < 0.12
    row_H = picture(scan)[:, fovea_W].mean(axis=1)
    bright_H = np.convolve(row_H, np.ones(3) / 3, "same") > 0.3 * row_H.max()
    return float(up_HW[np.argmax(bright_H), fovea_W].mean())
