"""Makes pictures.json: the pictures that need the models. Pages read them from this file.

mistakes          the worst mistakes of the first seed, with heat maps (`worst_mistakes.py`)
features          two directions of the frozen features of the test part (`feature_projection.py`)
reconstructions   a few test images, reconstructed by this checkpoint and by earlier ones of its run
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from retfound_dist.errors import RetfoundError
from retfound_dist.evaluate.data.labelled_set import LabelledSet, SplitPart
from retfound_dist.evaluate.data.starting_weights import StartingWeights, run_url
from retfound_dist.evaluate.pixels.image_encoding import encode_picture
from retfound_dist.evaluate.probe.feature_projection import project
from retfound_dist.evaluate.probe.frozen_features import Features
from retfound_dist.evaluate.probe.reconstruct import Reconstruction, reconstruct
from retfound_dist.formats import checkpoint_folder
from retfound_dist.model.weights.weight_files import Weights, autoencoder_from, read_weights

MAX_IMAGES = 5
"""Number of test images whose reconstruction is shown."""
DIFFERENCE_GAIN = 3
"""Differences are multiplied by this, because they would be too dark to see."""
_MASK_SEED = 0


def make_pictures(
    start: StartingWeights,
    data: LabelledSet,
    features_ND: Features,
    mistakes: dict[str, Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The content of pictures.json. A part is None where it cannot be made (no decoder, too few images).

    `features_ND`: frozen features of the test part.
    """
    return {
        "mistakes": mistakes,
        "features": project(features_ND),
        "reconstructions": reconstructions(start, data, say),
    }


def reconstructions(
    start: StartingWeights, data: LabelledSet, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """The same images and masks for the first, the middle and this checkpoint of a run.

    None without a decoder (`none`, or a file with an encoder only). An earlier checkpoint that cannot be read
    is reported and left out.
    """
    if start.weights is None or not start.weights.has_decoder:
        return None
    test = data.parts["test"]
    # Errors are reported and not raised, because scores that took hours must not be lost for a picture.
    indices = choose_images(test)
    images = [test.images[i] for i in indices]
    try:
        own_reconstructions = _reconstruct(start.weights, images)
    except RetfoundError as error:
        say(f"no reconstructions: {error}")
        return None
    if own_reconstructions is None:
        return None
    columns = []
    for step in earlier_steps(start):
        try:
            url = checkpoint_folder.checkpoint_url(str(run_url(start.url)), step)
            earlier = _reconstruct(read_weights(url), images)
        except RetfoundError as error:
            say(f"no reconstruction by step {step}: {error}")
            continue
        if earlier:
            columns.append(_encode_column(step, earlier))
    columns.append(_encode_column(start.describe()["step"], own_reconstructions))
    return {
        "keys": [test.keys[i] for i in indices],
        "labels": [data.classes[test.labels[i]] for i in indices],
        "image_size": start.image_size,
        "patch": start.weights.shape.patch,
        "original": [encode_picture(one.original) for one in own_reconstructions],
        "masked": [encode_picture(one.masked) for one in own_reconstructions],
        "checkpoints": columns,
    }


def earlier_steps(start: StartingWeights) -> list[int]:
    """The first and the middle one of the run's committed steps before this checkpoint, where they exist."""
    run, step = run_url(start.url), start.describe()["step"]
    if run is None or step is None:
        return []
    # Without later checkpoints: the page shows the run up to this one.
    steps = [s for s in checkpoint_folder.list_steps(run) if s <= step]
    return sorted({steps[0], steps[(len(steps) - 1) // 2]} - {step}) if steps else []


def choose_images(test: SplitPart) -> list[int]:
    """Indices of the test images to show: the first of each class, then the second of each, and so on."""
    labels = test.labels
    # The sort key is the number of earlier images of the same class.
    ranked = sorted((int((labels[:i] == labels[i]).sum()), int(labels[i]), i) for i in range(len(labels)))
    return [index for *_, index in ranked[:MAX_IMAGES]]


def _reconstruct(weights: Weights, images: Sequence[Any]) -> list[Reconstruction] | None:
    """None where the images do not have the size that the decoder was trained for."""
    model = autoencoder_from(weights)
    size = images[0].shape
    return reconstruct(model, images, _MASK_SEED) if tuple(model.config.size) == size else None


def _encode_column(step: int | None, images: Sequence[Reconstruction]) -> dict[str, Any]:
    """Reconstructions and differences of one checkpoint as PNG texts."""
    return {
        "step": step,
        "reconstruction": [encode_picture(one.reconstruction) for one in images],
        "difference": [encode_picture(_amplify(one.difference)) for one in images],
    }


def _amplify(difference: Any) -> Any:
    # As int, because uint8 would wrap around at 256.
    return np.minimum(difference.astype(int) * DIFFERENCE_GAIN, 255).astype(np.uint8)
