"""Computes features with a frozen encoder; those of a labelled set are cached.

Shapes: N images, S side, D the encoder's width.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from retfound_dist.errors import DataError, RetfoundError
from retfound_dist.evaluate.data.label_subset import TRAIN
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import StartingWeights
from retfound_dist.evaluate.finetune.finetuning import best_device
from retfound_dist.evaluate.pixels.gray_pixels import Pixels
from retfound_dist.evaluate.probe.encoder_images import FEATURES_VERSION, EncoderImages
from retfound_dist.evaluate.scores.bootstrap import ProgressCallback, shifted_progress
from retfound_dist.io import storage
from retfound_dist.model.backbones.backbone import Backbone

Features = NDArray[np.float32]
CACHE = "features.npz"
BATCH = 64
# Errors of numpy and zipfile for files that are cut, empty or have a changed byte; a test tries each of them.
_NPZ_ERRORS = (
    zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, NotImplementedError,
    AttributeError, TypeError,  # where the file is a single array and not an archive
)  # fmt: skip


def frozen_encoder(start: StartingWeights, seed: int = 0) -> nn.Module:
    """The encoder of starting weights, in eval mode. `none` gives random weights."""
    return start.backbone.build(seed=seed).to(best_device()).eval()


@torch.inference_mode()
def compute_features(
    model: nn.Module,
    backbone: Backbone,
    images: Sequence[Pixels],
    on_progress: ProgressCallback | None = None,
) -> Features:
    """Features (N, D) of grey images (S, S), in fp32: `Backbone.pooled`."""
    device = next(model.parameters()).device
    batches = []
    for begin in range(0, len(images), BATCH):
        batch = torch.from_numpy(np.stack(images[begin : begin + BATCH])[:, None]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            features_BD = backbone.pooled(model, backbone.preparation.normalise(batch))
        batches.append(features_BD.cpu().numpy())
        if on_progress:
            on_progress(min(begin + BATCH, len(images)), len(images))
    return np.concatenate(batches) if batches else np.empty((0, backbone.facts.width), np.float32)


def cached_features(
    start: StartingWeights,
    data: LabelledSet,
    parts: Sequence[str],
    folder: str,
    on_progress: ProgressCallback | None = None,
    *,
    of_whole_set: bool = False,
) -> dict[str, Features]:
    """Features of these parts, (N, D) each, in the order of their keys.

    They are read from `folder`/features.npz where it has the same weights and images. Else they are computed
    and written there. `of_whole_set`: where train has only some of the labels, the folder has the features of
    the whole train part, and the rows of these images are taken from them. So many subsets of a set need one
    pass of the encoder.
    """
    if of_whole_set and data.selection:
        whole_train = cached_features(start, data.selection.whole, parts, folder, on_progress)
        return {
            name: rows[data.selection.indices_N] if name == TRAIN else rows
            for name, rows in whole_train.items()
        }
    where, identity = storage.join(folder, CACHE), _identity(start, data)
    cached = _read(where, identity)
    missing = [name for name in parts if name not in cached]
    if missing:
        model, done, total = frozen_encoder(start), 0, sum(len(data.parts[name]) for name in missing)
        for name in missing:
            images = EncoderImages(data, [name], start.backbone)
            cached[name] = compute_features(
                model, start.backbone, images, shifted_progress(done, total, on_progress)
            )
            done += len(images)
        storage.write_bytes(where, npz_bytes({"identity": np.array(identity), **cached}))
    return {name: cached[name] for name in parts}


def npz_bytes(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """A .npz file's bytes."""
    file = BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def read_npz(url: str) -> dict[str, NDArray[np.generic]]:
    """All arrays of a .npz file, without pickled ones; DataError where it is damaged."""
    data = BytesIO(storage.read_bytes(url))
    try:
        # No pickles: a pickle from another person can run code when it is read.
        with np.load(data, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except _NPZ_ERRORS as error:
        raise DataError(f"{url} is not a complete .npz file ({error}): delete it and start again") from error


def _read(where: str, identity: str) -> dict[str, Features]:
    try:
        arrays = read_npz(where) if storage.exists(where) else {}
    except RetfoundError:
        return {}  # an unreadable cache is computed again
    if str(arrays.pop("identity", "")) != identity:
        return {}
    return {name: rows.astype(np.float32) for name, rows in arrays.items()}


def _identity(start: StartingWeights, data: LabelledSet) -> str:
    facts = [
        start.identity,
        start.describe()["encoder"],
        start.image_size,
        data.fingerprint,
        FEATURES_VERSION,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
