"""Takes a share of the labels: nested, stratified subsets of a train part.

The images of each class get one order, patient by patient, that depends on the seed alone. A share of the
labels is the beginning of this order. So a smaller subset is part of every larger one. Every class keeps its
share, at least one image. Few labels come from few patients, as in practice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from retfound_dist.config.schema import EvalData
from retfound_dist.evaluate.data.gray_pixels import BICUBIC
from retfound_dist.evaluate.data.labelled_set import LabelledSet, SplitPart, load_labelled_set
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.bootstrap import ProgressCallback
from retfound_dist.evaluate.scores.metrics import Labels

TRAIN = "train"


def load_label_share(
    config: EvalData,
    image_size: int,
    on_progress: ProgressCallback | None = None,
    interpolation: str = BICUBIC,
) -> LabelledSet:
    """A labelled set with `label_share` of its train part; raises DataError as `load_labelled_set` does."""
    data = load_labelled_set(config, image_size, on_progress, interpolation)
    return with_label_share(data, config.label_share, config.split_seed)


def with_label_share(data: LabelledSet, share: float, seed: int) -> LabelledSet:
    """The set with this share of its train part; val and test stay as they are."""
    if share >= 1:
        return data
    train = data.parts[TRAIN]
    _, units_N = bootstrap.resampling_units(train.patients, train.keys, train.units)
    chosen = subset_indices(train.labels, units_N, share, seed)
    # Cached features and finished evaluations are found by the fingerprint, so each share needs its own.
    fingerprint = hashlib.sha256(f"{data.fingerprint} {share!r} of train, seed {seed}".encode()).hexdigest()
    return replace(data, parts={**data.parts, TRAIN: _select_images(train, chosen)}, fingerprint=fingerprint)


def subset_indices(
    labels_N: Labels, units_N: NDArray[np.int64], share: float, seed: int
) -> NDArray[np.int64]:
    """Sorted indices of the images that a share keeps."""
    generator = np.random.default_rng([seed, 31])
    rank_N = generator.permutation(int(units_N.max()) + 1)[units_N]
    chosen = []
    for label in np.unique(labels_N):
        class_indices = np.flatnonzero(labels_N == label)
        # Images of one patient have equal ranks: a stable sort keeps them in the order of their keys.
        ordered = class_indices[np.argsort(rank_N[class_indices], kind="stable")]
        chosen.append(ordered[: max(1, round(share * len(class_indices)))])
    return np.sort(np.concatenate(chosen))


def _select_images(part: SplitPart, chosen: Sequence[int] | NDArray[np.int64]) -> SplitPart:
    """The part with only the images at these places."""
    return SplitPart(
        keys=tuple(part.keys[i] for i in chosen),
        labels=part.labels[chosen],
        patients=tuple(part.patients[i] for i in chosen),
        images=tuple(part.images[i] for i in chosen),
        units=tuple(part.units[i] for i in chosen if part.units),
        digests=tuple(part.digests[i] for i in chosen),
    )
