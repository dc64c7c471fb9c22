"""The worst mistakes on the test part, with heat maps of the model that made them.

Shapes: N images, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.finetune.finetuning import FinetuneResult
from retfound_dist.evaluate.finetune.heatmaps import heat_maps
from retfound_dist.evaluate.pixels.image_encoding import encode_picture, round_heat_map
from retfound_dist.evaluate.scores.metrics import Floats, Labels
from retfound_dist.model.backbones.backbone import Backbone

MAX_SHOWN = 6
_PROBABILITY_DIGITS = 4


def worst_indices(labels_N: Labels, probabilities_NC: Floats, max_images: int = MAX_SHOWN) -> list[int]:
    """Indices of the images with a wrong prediction, the most confident first."""
    predicted_N = probabilities_NC.argmax(1)
    wrong = np.flatnonzero(predicted_N != labels_N)
    confidence = probabilities_NC[wrong, predicted_N[wrong]]
    # Stable: equal ones stay in the order of their keys, so the page is the same each time.
    return [int(i) for i in wrong[np.argsort(-confidence, kind="stable")][:max_images]]


def worst_mistakes(
    model: nn.Module, backbone: Backbone, data: LabelledSet, result: FinetuneResult
) -> dict[str, Any]:
    """For pictures.json: the seed, how many images were wrong, and the worst of them with maps.

    The gradient map is that of the predicted class.
    """
    test, probabilities_NC = data.parts["test"], result.probabilities
    predicted_N = probabilities_NC.argmax(1)
    worst = worst_indices(test.labels, probabilities_NC)
    tree: dict[str, Any] = {
        "seed": result.seed,
        "wrong": int((predicted_N != test.labels).sum()),
        "images": [],
    }
    if not worst:
        return tree
    maps = heat_maps(model, backbone, [test.images[i] for i in worst], [int(predicted_N[i]) for i in worst])
    for row, i in enumerate(worst):
        class_probabilities = zip(data.classes, probabilities_NC[i], strict=True)
        tree["images"].append(
            {
                "key": test.keys[i],
                "label": data.classes[test.labels[i]],
                "predicted": data.classes[predicted_N[i]],
                "probabilities": {c: round(float(p), _PROBABILITY_DIGITS) for c, p in class_probabilities},
                "image": encode_picture(test.images[i]),
                # A family without attention has no roll-out.
                **({} if maps.rollout is None else {"rollout": round_heat_map(maps.rollout[row])}),
                "gradient": round_heat_map(maps.gradient[row]),
            }
        )
    return tree
