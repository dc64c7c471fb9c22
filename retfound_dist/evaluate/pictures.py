"""Reconstructions on the page: the same test images and masks for every checkpoint."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from retfound_dist.errors import WeightsError
from retfound_dist.evaluate.dataset import LabelledSet, Part
from retfound_dist.evaluate.pixels import Pixels
from retfound_dist.evaluate.reconstruct import Reconstruction, png, reconstruct
from retfound_dist.evaluate.start import Start
from retfound_dist.model.weights import autoencoder_from

PICTURES = 5
"""Test images whose reconstruction is shown, one of each class first."""
_MASK_SEED = 0


def picture_tables(starts: Mapping[str, Start], sets: Mapping[int, LabelledSet]) -> list[dict[str, Any]]:
    """A table for each image size and patch: original, masked, then one column a checkpoint.

    Rows without a decoder (`none`, an encoder alone) have no picture.
    """
    groups: dict[tuple[int, int], dict[str, list[Reconstruction]]] = {}
    for name, start in starts.items():
        if start.weights is None or not start.weights.has_decoder:
            continue
        try:
            model = autoencoder_from(start.weights)
        except WeightsError:
            continue
        test = sets[start.image_size].parts["test"]
        images = [test.images[i] for i in _chosen(test)]
        groups.setdefault((start.image_size, start.shape.patch), {})[name] = reconstruct(
            model, images, _MASK_SEED
        )
    tables = []
    for (size, _), found in groups.items():
        data = sets[size]
        tables.append(
            _table(found, [data.classes[data.parts["test"].labels[i]] for i in _chosen(data.parts["test"])])
        )
    return tables


def _table(found: Mapping[str, Sequence[Reconstruction]], labels: Sequence[str]) -> dict[str, Any]:
    names = list(found)
    single = len(names) == 1
    columns = ["original", "masked", *(["reconstruction", "difference"] if single else names)]
    lines = []
    for i, label in enumerate(labels):
        first = found[names[0]][i]
        shown = [first.original, first.masked, *(found[name][i].reconstruction for name in names)]
        lines.append(
            {"label": label, "images": [_uri(p) for p in ([*shown, first.difference] if single else shown)]}
        )
    return {"columns": columns, "lines": lines}


def _chosen(test: Part) -> list[int]:
    """Places of the test images to show: the first of each class in turn."""
    labels = test.labels
    ranked = sorted((int((labels[:i] == labels[i]).sum()), int(labels[i]), i) for i in range(len(labels)))
    return [place for *_, place in ranked[:PICTURES]]


def _uri(pixels: Pixels) -> str:
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()
