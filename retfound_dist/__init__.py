"""Pretraining and evaluation of retinal OCT foundation models, on any number of GPUs.

In Python (docs/python.md):

    import retfound_dist

    classifier = retfound_dist.load_classifier("EVALUATION/classifier")
    images = retfound_dist.read_images("folder", like=classifier)
    probabilities_NC = retfound_dist.predict(classifier, images)

The names below are imported at their first use, because torch takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retfound_dist.evaluate.classifier.classifier import Classifier, load_classifier
    from retfound_dist.python_api.encoder import Encoder, load_encoder
    from retfound_dist.python_api.image_reading import PreparedImages, read_image_batches, read_images
    from retfound_dist.python_api.model_outputs import embed, predict

__all__ = [
    "Classifier",
    "Encoder",
    "PreparedImages",
    "embed",
    "load_classifier",
    "load_encoder",
    "predict",
    "read_image_batches",
    "read_images",
]

_MODULES = {
    "evaluate.classifier.classifier": ("Classifier", "load_classifier"),
    "python_api.encoder": ("Encoder", "load_encoder"),
    "python_api.image_reading": ("PreparedImages", "read_image_batches", "read_images"),
    "python_api.model_outputs": ("embed", "predict"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"retfound_dist.{module}"), name)
    raise AttributeError(f"module 'retfound_dist' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
