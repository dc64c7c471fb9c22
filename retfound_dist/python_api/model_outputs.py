"""Features and probabilities of many images, in batches: the numbers that the commands write.

Shapes: N images, S the side of the model's input, D the encoder's width, C classes.
"""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from retfound_dist.errors import ConfigError, DataError
from retfound_dist.evaluate.classifier.classifier import Classifier, mean_probabilities, seed_probabilities
from retfound_dist.evaluate.classifier.unit_classifier import unit_note
from retfound_dist.evaluate.pixels.gray_pixels import Pixels
from retfound_dist.evaluate.probe.frozen_features import Features, compute_features
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.listing.unit_names import IMAGE
from retfound_dist.python_api.encoder import Encoder
from retfound_dist.python_api.image_reading import PreparedImages

GrayImages: TypeAlias = "PreparedImages | NDArray[np.uint8] | Tensor"
"""What `read_images` gives, or its pixels: uint8, (N, 1, S, S) or (N, S, S)."""


def embed(encoder: Encoder, images: GrayImages) -> Features:
    """(N, D) in fp32: the features that `retfound embed` writes for these images.

    Computed on the device of the encoder, without gradients. On a GPU in bf16, as the command does. For
    colour images and floats call the encoder itself.
    """
    _check_kind(encoder, Encoder, "embed", "load_encoder")
    return compute_features(encoder.model, encoder.backbone, _gray_pixels(images, encoder.image_size))


def predict(classifier: Classifier, images: GrayImages, *, calibrated: bool = True) -> Floats:
    """(N, C): the probability of each class of `classifier.classes`, as the mean over its seeds.

    `calibrated`: at the temperature that was fitted on val; False: as in predictions.csv of the evaluation.
    Computed on the device of the classifier, without gradients, in the batches and in the precision of the
    evaluation. For colour images and floats call the classifier itself. A warning where the classifier was
    scored by volume, eye or patient: `retfound predict --unit` gives probabilities of those.
    """
    _check_kind(classifier, Classifier, "predict", "load_classifier")
    if note := unit_note(classifier.facts, IMAGE):
        warnings.warn(f"{note}; `retfound predict --unit` gives those of units", stacklevel=2)
    pixels = _gray_pixels(images, classifier.image_size)
    if not pixels:
        return np.empty((0, len(classifier.classes)))
    return mean_probabilities(classifier, seed_probabilities(classifier, pixels), calibrated=calibrated)


def _check_kind(model: nn.Module, kind: type[nn.Module], function: str, loader: str) -> None:
    if not isinstance(model, kind):
        raise ConfigError(
            f"retfound_dist.{function} takes what retfound_dist.{loader} gives, not a {type(model).__name__}"
        )


def _gray_pixels(images: GrayImages, side: int) -> list[Pixels]:
    """The images (S, S), one by one; DataError where they are not gray, uint8 and of this size."""
    pixels: Any = images.pixels if isinstance(images, PreparedImages) else images
    if isinstance(pixels, Tensor):
        pixels = pixels.cpu().numpy()
    array = np.asarray(pixels)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[1:] != (side, side):
        raise DataError(
            f"images are {array.dtype} of the shape {array.shape}: this model takes uint8 of the shape "
            f"(N, 1, {side}, {side}); `retfound_dist.read_images(..., like=model)` gives them"
        )
    return list(array)
