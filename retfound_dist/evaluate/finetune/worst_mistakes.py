"""The worst mistakes on the test part, with heat maps of the model that made them.

Shapes: N images, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from timm.models.vision_transformer import VisionTransformer

from retfound_dist.evaluate.data.image_encoding import heat_text, picture_text
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.finetune.finetuning import Outcome
from retfound_dist.evaluate.finetune.heatmaps import heat_maps
from retfound_dist.evaluate.scores.metrics import Floats, Labels

SHOWN = 6
_DIGITS = 4


def worst(labels_N: Labels, probabilities_NC: Floats, most: int = SHOWN) -> list[int]:
    """Indices of the images that were taken for a wrong class, the most confident first."""
    guess_N = probabilities_NC.argmax(1)
    wrong = np.flatnonzero(guess_N != labels_N)
    sure = probabilities_NC[wrong, guess_N[wrong]]
    # Stable, so that equal ones come in the order of their keys and the page is the same each time.
    return [int(i) for i in wrong[np.argsort(-sure, kind="stable")][:most]]


def worst_mistakes(model: VisionTransformer, data: LabelledSet, outcome: Outcome) -> dict[str, Any]:
    """For pictures.json: the seed, how many images were wrong, and the worst of them with maps.

    The gradient's map is of the class that the image was taken for.
    """
    test, p_NC = data.parts["test"], outcome.probabilities
    guess_N = p_NC.argmax(1)
    places = worst(test.labels, p_NC)
    tree: dict[str, Any] = {"seed": outcome.seed, "wrong": int((guess_N != test.labels).sum()), "images": []}
    if not places:
        return tree
    maps = heat_maps(model, [test.images[i] for i in places], [int(guess_N[i]) for i in places])
    for row, i in enumerate(places):
        class_probabilities = zip(data.classes, p_NC[i], strict=True)
        tree["images"].append(
            {
                "key": test.keys[i],
                "label": data.classes[test.labels[i]],
                "predicted": data.classes[guess_N[i]],
                "probabilities": {c: round(float(p), _DIGITS) for c, p in class_probabilities},
                "image": picture_text(test.images[i]),
                "rollout": heat_text(maps.rollout[row]),
                "gradient": heat_text(maps.gradient[row]),
            }
        )
    return tree
