"""Adds what a clinic asks to metrics.json: `clinical` and `subgroups`, of the test part and the external set.

Shapes: S seeds, N images, C classes of the network, M mapped classes of an external set, V val images.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from retfound_dist.config.schema import EvaluateConfig
from retfound_dist.evaluate.clinical.clinical_entries import clinical_entries
from retfound_dist.evaluate.clinical.scored_images import ScoredImages
from retfound_dist.evaluate.clinical.subgroup_scores import group_part, subgroup_entries
from retfound_dist.evaluate.data.external_validation import mapped_mean, renormalise
from retfound_dist.evaluate.data.labelled_set import ExternalSet, LabelledSet, SplitPart
from retfound_dist.evaluate.scores.bootstrap import UnitDraws
from retfound_dist.evaluate.scores.metrics import DIGITS, Floats, Labels
from retfound_dist.runtime.progress import ProgressDisplay

Predicted = tuple[Floats, UnitDraws]
"""The network's probabilities of a test for each seed (S, N, C), and the resamples of the test."""


def add_clinical_scores(
    tree: dict[str, Any],
    data: LabelledSet,
    config: EvaluateConfig,
    test: Predicted,
    val_probabilities_VC: Floats | None,
    external: Predicted | None,
    show: ProgressDisplay,
) -> None:
    """Set `clinical` and `subgroups` of metrics.json (`tree`), and those of `external` where there is such
    a set."""
    part, val = data.parts["test"], data.parts["val"]
    temperature = float(tree["temperature"]["value"])
    probabilities_SNC, draws = test
    images = ScoredImages(
        data.classes,
        part.labels,
        probabilities_SNC,
        draws.weights_RN,
        draws.units_N,
        temperature,
        unit=data.unit,
    )
    show.begin("clinical scores")
    tree |= _entries(images, part, config, val.labels, val_probabilities_VC, show)
    if data.external and external:
        show.begin("clinical scores of the external set")
        mapped, (probabilities_SNC, draws) = tuple(data.external.class_map), external
        images = ScoredImages(
            mapped,
            data.external.part.labels,
            probabilities_SNC,
            draws.weights_RN,
            draws.units_N,
            temperature,
            # As `external_validation.score` scores it.
            partial(mapped_mean, classes=data.classes, mapped_classes=mapped),
            data.unit,
        )
        labels_V, mapped_VM = _mapped_val(data.external, data.classes, val.labels, val_probabilities_VC)
        tree["external"] |= _entries(images, data.external.part, config, labels_V, mapped_VM, show)


def _entries(
    images: ScoredImages,
    part: SplitPart,
    config: EvaluateConfig,
    val_labels_V: Labels,
    val_probabilities_VM: Floats | None,
    show: ProgressDisplay,
) -> dict[str, Any]:
    """`clinical`, and `subgroups` where columns are named."""
    entries = {
        "clinical": clinical_entries(
            images, val_labels_V, val_probabilities_VM, config.clinical, show.advance
        )
    }
    if groupings := group_part(part, config.data.subgroups):
        entries["subgroups"] = subgroup_entries(images, part.patients, groupings, show.advance)
    return entries


def _mapped_val(
    external: ExternalSet, classes: tuple[str, ...], labels_V: Labels, probabilities_VC: Floats | None
) -> tuple[Labels, Floats | None]:
    """The val images of mapped classes with the probabilities of these classes, as the external set has
    them."""
    mapped = tuple(external.class_map)
    chosen_V = np.flatnonzero(np.isin(labels_V, [classes.index(name) for name in mapped]))
    new_index = {classes.index(name): i for i, name in enumerate(mapped)}
    labels_M = np.array([new_index[int(label)] for label in labels_V[chosen_V]], dtype=np.int64)
    if probabilities_VC is None:
        return labels_M, None
    return labels_M, renormalise(probabilities_VC[chosen_V], classes, mapped).round(DIGITS)
