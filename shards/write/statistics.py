"""Statistics of packed images, summed over shards: sizes, colours, intensities."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfound_dist.config.schema import PackImage
from shards.write.packed_sample import PackedSample

Counts = NDArray[np.int64]


def _no_pixels() -> Counts:
    return np.zeros(256, np.int64)


@dataclass
class Statistics:
    """Running counts over images. The counts of a set are the sums over its shards."""

    grey: int = 0
    colour: int = 0
    as_is: int = 0
    bytes: int = 0
    heights: Counter[int] = field(default_factory=Counter)
    widths: Counter[int] = field(default_factory=Counter)
    measured: int = 0
    """Only those encoded images whose loss was measured."""
    # Integers, because a sum of floats depends on the order of the shards.
    encoding_error: int = 0
    """Sum of the squared differences in the measured images."""
    pixels: int = 0
    """Pixels of the measured images."""
    histogram: Counts = field(default_factory=_no_pixels)

    def add(self, sample: PackedSample) -> None:
        """Count one image."""
        self.grey += sample.grey
        self.colour += not sample.grey
        self.as_is += sample.as_is
        self.bytes += sample.image_bytes
        self.heights[sample.height] += 1
        self.widths[sample.width] += 1
        if sample.encoding_error is not None:
            self.measured += 1
            self.encoding_error += sample.encoding_error[0]
            self.pixels += sample.encoding_error[1]
        self.histogram += sample.histogram

    def to_tree(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "grey": self.grey,
            "colour": self.colour,
            "as_is": self.as_is,
            "bytes": self.bytes,
            "heights": sorted(self.heights.items()),
            "widths": sorted(self.widths.items()),
            "error": [self.measured, self.encoding_error, self.pixels],
            "histogram": self.histogram.tolist(),
        }

    @staticmethod
    def from_tree(tree: Mapping[str, Any]) -> Statistics:
        """Rebuilds the statistics of a shard from its index file (the result of `to_tree`)."""
        # The three sums over the measured images share one key.
        measured, encoding_error, pixels = tree["error"]
        return Statistics(
            measured=measured,
            encoding_error=encoding_error,
            pixels=pixels,
            grey=tree["grey"],
            colour=tree["colour"],
            as_is=tree["as_is"],
            bytes=tree["bytes"],
            heights=Counter(dict(tree["heights"])),
            widths=Counter(dict(tree["widths"])),
            histogram=np.asarray(tree["histogram"], np.int64),
        )


def sum_statistics(parts: Iterable[Statistics]) -> Statistics:
    """Sums statistics over shards."""
    whole = Statistics()
    for part in parts:
        whole.grey += part.grey
        whole.colour += part.colour
        whole.as_is += part.as_is
        whole.bytes += part.bytes
        whole.measured += part.measured
        whole.encoding_error += part.encoding_error
        whole.pixels += part.pixels
        whole.heights += part.heights
        whole.widths += part.widths
        whole.histogram = whole.histogram + part.histogram
    return whole


def image_section(whole: Statistics, image: PackImage) -> dict[str, Any]:
    """Returns the manifest's `image` section. Levels (0-255) are counted over some pixels of every image."""
    levels = np.arange(256)
    pixels = int(whole.histogram.sum())
    mean = float((whole.histogram * levels).sum() / pixels)
    variance = float((whole.histogram * (levels - mean) ** 2).sum() / pixels)
    count = whole.grey + whole.colour
    return {
        "format": image.format,
        "quality": image.quality,
        "max_height": image.max_height,
        "grey": whole.grey,
        "colour": whole.colour,
        "stored_as_is": whole.as_is,
        "median_height": median(whole.heights),
        "median_width": median(whole.widths),
        "bytes_per_image": round(whole.bytes / count, 1),
        "psnr_db": psnr(whole.encoding_error, whole.pixels),
        "psnr_images": whole.measured,
        "mean": round(mean, 3),
        "std": round(variance**0.5, 3),
        "histogram": whole.histogram.tolist(),
    }


def psnr(error: int, pixels: int) -> float | None:
    """Peak signal-to-noise ratio in dB from summed squared differences of 8-bit pixels; None: not known."""
    return round(10 * math.log10(255**2 * pixels / error), 2) if error and pixels else None


def median(counts: Counter[int]) -> int:
    """The lower median of counted values."""
    half, pixels_below = (counts.total() + 1) // 2, 0
    for value in sorted(counts):
        pixels_below += counts[value]
        if pixels_below >= half:
            return value
    raise ValueError("no values")
