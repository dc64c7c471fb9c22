"""Finished parts of a prediction: files beside the target, so that an interrupted command continues.

    OUT.csv.parts/0123....npz      probabilities of each seed, facts, identities and reasons of some images

A part's name is a digest of the classifier and of the images' keys. It is used again only where the content
of its images is unchanged.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from retfound_dist.errors import DataError, RecordError, StorageError
from retfound_dist.evaluate.probe.frozen_features import Features, npz_bytes, read_npz
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.io import finished_parts, storage, verified_files
from retfound_dist.prediction.input_images import InputImage, ScanFacts
from retfound_dist.records import json_reader


@dataclass(frozen=True)
class PredictedPart:
    """Predictions of consecutive images. Shapes: S seeds, N images, C classes, D features."""

    facts: list[ScanFacts]
    """What only reading a sample of a shard shows; empty for other images, which their listing describes."""
    probabilities_SNC: Floats
    """Of each seed, not calibrated; NaN for an image that cannot be read."""
    reasons: list[str]
    """Why an image cannot be read; empty where it can."""
    identities: list[str]
    """What changes with the content of an image."""
    features_SND: Features | None = None
    """What an attention head needs of each image, if it was asked for; 0 for an image that cannot be read."""

    def __len__(self) -> int:
        return len(self.reasons)


@dataclass(frozen=True)
class _Texts:
    """The texts of a part, as JSON in its file."""

    facts: list[tuple[str | None, str | None, str | None, int | None]]
    reasons: list[str]
    identities: list[str]


class PartFolder:
    """The folder of parts beside a target."""

    def __init__(self, out: str, identity: str) -> None:
        """`identity`: changes with all that a prediction depends on besides the images."""
        self._out, self._identity, self._began = out, identity, time.time()
        self.url = finished_parts.parts_url(out)
        self._names = set(storage.list_names(self.url))

    def _name(self, images: Sequence[InputImage]) -> str:
        text = json.dumps([self._identity, [image.key for image in images]])
        return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"

    def read(self, images: Sequence[InputImage]) -> PredictedPart | None:
        """The part of these images; None where there is none, or a damaged one. Content is not compared."""
        name = self._name(images)
        part = _read_part(storage.join(self.url, name)) if name in self._names else None
        return part if part and len(part) == len(images) else None

    def write(self, images: Sequence[InputImage], part: PredictedPart) -> None:
        """Store a part."""
        facts = [astuple(fact) for fact in part.facts]
        texts = {"facts": facts, "reasons": part.reasons, "identities": part.identities}
        arrays: dict[str, NDArray[np.generic]] = {
            "probabilities": part.probabilities_SNC,
            # As bytes, because NumPy stores text with four bytes for each letter.
            "texts": np.frombuffer(json.dumps(texts).encode(), np.uint8),
        }
        if part.features_SND is not None:
            arrays["features"] = part.features_SND
        storage.write_bytes(storage.join(self.url, self._name(images)), npz_bytes(arrays))

    def delete(self) -> None:
        """Delete all parts, and the folder where it is empty."""
        finished_parts.delete_parts(self._out, self._began)


def _read_part(url: str) -> PredictedPart | None:
    """A part that an earlier process has predicted; None where it is missing or damaged."""
    try:
        arrays = read_npz(url)
        texts = json_reader.parse(arrays["texts"].tobytes(), _Texts, url, "")
        probabilities_SNC = arrays["probabilities"].astype(np.float64)
        features_SND = arrays["features"].astype(np.float32) if "features" in arrays else None
    except (DataError, RecordError, KeyError, ValueError):
        return None  # damaged: it is made again
    except StorageError as error:
        # Another process that predicts the same has just finished and has deleted its parts.
        if verified_files.is_missing(error):
            return None
        raise
    facts = [ScanFacts(*row) for row in texts.facts]
    if not len(facts) == len(texts.reasons) == len(texts.identities) == probabilities_SNC.shape[1]:
        return None
    return PredictedPart(facts, probabilities_SNC, texts.reasons, texts.identities, features_SND)
