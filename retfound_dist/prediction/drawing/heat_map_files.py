"""`--heatmaps`: a picture of each image with the patches that speak for its predicted class or labels.

Shapes: N images, C classes, S side, G patches along a side.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Container, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retfound_dist.evaluate.classifier.classifier import Classifier
from retfound_dist.evaluate.finetune.heatmaps import heat_maps
from retfound_dist.evaluate.pixels.gray_pixels import Pixels
from retfound_dist.evaluate.pixels.image_encoding import overlay
from retfound_dist.evaluate.scores.metrics import Floats

BATCH = 16
"""Images at a time. A map needs the gradient of a whole forward pass, so more memory than a prediction."""
_GAP = 4
"""Pixels between the image and the image with its map."""
_OTHER_SIGNS = re.compile(r"[^A-Za-z0-9_.-]+")


def picture_name(key: str, shown: Sequence[str]) -> str:
    """The file name of an image's picture: plain letters, and another name for every key.

    `shown`: all that the picture depends on besides the key. The name changes with it.
    """
    plain = _OTHER_SIGNS.sub("_", key).strip("._")[-120:]
    # Keys that differ only in other signs, or in their beginning, must not share a file.
    return f"{plain}-{_short_digest(os.fsencode(key))}-{_short_digest(json.dumps(shown).encode())}.png"


def stale_pictures(present: Iterable[str], keys: Iterable[str], valid: Container[str]) -> list[str]:
    """The pictures of these keys that show something else: another classifier, class or content."""
    beginnings = {_beginning(picture_name(key, ())) for key in keys}
    return [name for name in present if name not in valid and _beginning(name) in beginnings]


def _beginning(name: str) -> str:
    """What names of all pictures of one key have in common."""
    return name.rpartition("-")[0]


def _short_digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def gradient_maps(
    classifier: Classifier, images: Sequence[Pixels], outputs: Sequence[int]
) -> Iterator[Floats]:
    """(G, G) of each gray image (S, S): the mean over seeds of the map of this output of the network.

    The maps of each seed are scaled to a sum of 1 first, so that no seed outweighs the others.
    """
    for start in range(0, len(images), BATCH):
        rows, classes = images[start : start + BATCH], outputs[start : start + BATCH]
        maps_SNGG = np.stack(
            [heat_maps(model, classifier.backbone, rows, classes).gradient for model in classifier.models]
        )
        sums = maps_SNGG.sum((2, 3), keepdims=True)
        # A map of zeros stays one: no patch raised the score.
        yield from (maps_SNGG / np.where(sums > 0, sums, 1)).mean(0)


def side_by_side(image_SS: Pixels, maps: Iterable[Floats]) -> NDArray[np.uint8]:
    """(S, 2 S + gap, 3) with one map (G, G): the image, and the image with its map. Wider with more maps."""
    gray = np.repeat(image_SS[..., None], 3, axis=2)
    gap = np.full((image_SS.shape[0], _GAP, 3), 255, np.uint8)
    shown = [gray]
    for heat_GG in maps:
        shown += [gap, overlay(image_SS, heat_GG.tolist())]
    return np.concatenate(shown, axis=1)


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
