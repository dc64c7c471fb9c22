"""Takes some of the labels: nested subsets of a train part, by share or by patients of each class.

A share: the images of each class get one order, patient by patient, that depends on the seed alone. A share
of the labels is the beginning of this order. So a smaller subset is part of every larger one. Every class
keeps its share, at least one image. Few labels come from few patients, as in practice.

Shots: the patients get one order that depends on the seed and the draw. K shots are the first K patients of
each class in this order, with all of their images of this class. A patient with images of two classes counts
for each of them. So every class has K patients, and K shots are part of 2K shots of the same draw.

Where no patient is known, a volume, a folder or an image stands for a patient. Shape: N images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from retfound_dist.config.schema import EvalData, Task
from retfound_dist.evaluate.data.labelled_set import LabelledSet, SplitPart, TrainSelection
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.pixels.gray_pixels import BICUBIC
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.bootstrap import ProgressCallback
from retfound_dist.evaluate.scores.metrics import Labels
from retfound_dist.listing.unit_names import IMAGE

TRAIN = "train"
# Purposes in the keys of random generators.
_SHARE, _SHOTS = 31, 37


def load_label_subset(
    config: EvalData,
    image_size: int,
    on_progress: ProgressCallback | None = None,
    interpolation: str = BICUBIC,
    task: Task | None = None,
) -> LabelledSet:
    """A labelled set with the chosen labels of train; raises DataError as `load_labelled_set` does."""
    whole = load_labelled_set(config, image_size, on_progress, interpolation, task)
    return with_label_subset(whole, config)


def with_label_subset(data: LabelledSet, config: EvalData) -> LabelledSet:
    """The set with the labels that `label_share`, or `label_shots` and `shot_draw`, choose.

    Val and test stay as they are.
    """
    if config.label_shots:
        return with_label_shots(data, config.label_shots, config.split_seed, config.shot_draw)
    return with_label_share(data, config.label_share, config.split_seed)


def whole_train(config: EvalData) -> EvalData:
    """The settings with all labels of train."""
    return replace(config, label_share=1.0, label_shots=0, shot_draw=0)


def with_label_share(data: LabelledSet, share: float, seed: int) -> LabelledSet:
    """The set with this share of its train part."""
    if share >= 1:
        return data
    train = data.parts[TRAIN]
    _, units_N = bootstrap.resampling_units(train.patients, train.keys, train.units)
    chosen = subset_indices(train.labels, units_N, share, seed)
    if data.unit != IMAGE:
        # The last eye of a class may be chosen in part: a volume, an eye or a patient is used as a whole.
        unit_N = train.index(data.unit).unit_of_image_N
        chosen = np.flatnonzero(np.isin(unit_N, unit_N[chosen]))
    return _with_images(data, chosen, f"{share!r} of train, seed {seed}")


def with_label_shots(data: LabelledSet, shots: int, seed: int, draw: int) -> LabelledSet:
    """The set with so many patients of each class in train."""
    train = data.parts[TRAIN]
    _, units_N = bootstrap.resampling_units(train.patients, train.keys, train.units)
    chosen = shot_indices(train.labels, units_N, shots, seed, draw)
    return _with_images(data, chosen, f"{shots} shots of train, seed {seed}, draw {draw}")


def count_class_units(data: LabelledSet) -> tuple[str, dict[str, int]]:
    """(`patient`, `volume`, `folder` or `image`; class -> how many of them it has in train)."""
    train = data.parts[TRAIN]
    unit, units_N = bootstrap.resampling_units(train.patients, train.keys, train.units)
    return unit, {
        name: len(np.unique(units_N[train.labels == label])) for label, name in enumerate(data.classes)
    }


def subset_indices(
    labels_N: Labels, units_N: NDArray[np.int64], share: float, seed: int
) -> NDArray[np.int64]:
    """Sorted indices of the images that a share keeps."""
    generator = np.random.default_rng([seed, _SHARE])
    rank_N = generator.permutation(int(units_N.max()) + 1)[units_N]
    chosen = []
    for label in np.unique(labels_N):
        class_indices = np.flatnonzero(labels_N == label)
        # Images of one patient have equal ranks: a stable sort keeps them in the order of their keys.
        ordered = class_indices[np.argsort(rank_N[class_indices], kind="stable")]
        chosen.append(ordered[: max(1, round(share * len(class_indices)))])
    return np.sort(np.concatenate(chosen))


def shot_indices(
    labels_N: Labels, units_N: NDArray[np.int64], shots: int, seed: int, draw: int
) -> NDArray[np.int64]:
    """Sorted indices of the images of the first `shots` units of each class, or of all where it has fewer."""
    generator = np.random.default_rng([seed, _SHOTS, draw])
    rank_N = generator.permutation(int(units_N.max()) + 1)[units_N]
    chosen = []
    for label in np.unique(labels_N):
        class_indices = np.flatnonzero(labels_N == label)
        first_ranks = np.unique(rank_N[class_indices])[:shots]
        chosen.append(class_indices[np.isin(rank_N[class_indices], first_ranks)])
    return np.sort(np.concatenate(chosen))


def _with_images(data: LabelledSet, chosen_N: NDArray[np.int64], subset: str) -> LabelledSet:
    """The set with only these images in train; `subset` describes the choice."""
    # Cached features and finished evaluations are found by the fingerprint, so each subset needs its own.
    fingerprint = hashlib.sha256(f"{data.fingerprint} {subset}".encode()).hexdigest()
    return replace(
        data,
        parts={**data.parts, TRAIN: _select_images(data.parts[TRAIN], chosen_N)},
        fingerprint=fingerprint,
        selection=TrainSelection(data, chosen_N),
    )


def _select_images(part: SplitPart, chosen: Sequence[int] | NDArray[np.int64]) -> SplitPart:
    """The part with only the images at these places."""
    return SplitPart(
        keys=tuple(part.keys[i] for i in chosen),
        labels=part.labels[chosen],
        patients=tuple(part.patients[i] for i in chosen),
        images=tuple(part.images[i] for i in chosen),
        units=tuple(part.units[i] for i in chosen if part.units),
        digests=tuple(part.digests[i] for i in chosen),
        descriptions=tuple(part.descriptions[i] for i in chosen if part.descriptions),
        targets_NT=None if part.targets_NT is None else part.targets_NT[chosen],
    )
