"""An evaluation of drawn predictions with all that a clinic asks, for tests of tables and pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from retfound_dist.config.schema import Clinical
from retfound_dist.evaluate.clinical.clinical_entries import clinical_entries
from retfound_dist.evaluate.clinical.subgroup_scores import subgroup_entries
from retfound_dist.evaluate.data.subgroup_columns import Grouping
from retfound_dist.evaluate.results.evaluation import Evaluation
from tests.evaluate.clinical.drawn import drawn_predictions, scored
from tests.evaluate.inputs import CLASSES
from tests.evaluate.made import predictions

DEVICE = Grouping("device", ("A", "<b>B</b> $x$", "unknown"), np.array([0] * 60 + [1] * 25 + [2] * 5))


def clinical_evaluation(
    settings: Clinical | None = None, groupings: Sequence[Grouping] = (DEVICE,), val: int = 120, seed: int = 0
) -> Evaluation:
    """90 images of three classes, and a val part of this size."""
    made = predictions(seed)
    images = scored(made.labels_N, made.probabilities_NC[None], 60, 3, 1.4, CLASSES)
    val_labels, val_p = drawn_predictions(val, 3, seed=3)
    entries = clinical_entries(images, val_labels, val_p[0], settings or Clinical())
    tree = {**made.metrics, "clinical": entries, "temperature": {"value": 1.4}}
    if groupings:
        tree["subgroups"] = subgroup_entries(images, made.patients, groupings)
    return replace(made, metrics=tree)
