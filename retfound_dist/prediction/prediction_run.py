"""Predicts images in a stream: read by workers, predicted in batches, stored in parts.

Shapes: S seeds, N images, C classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from itertools import islice

import numpy as np
import torch

from retfound_dist.errors import DataError
from retfound_dist.evaluate.classifier.classifier import Classifier, seed_probabilities
from retfound_dist.evaluate.classifier.classifier_file import ClassifierFile
from retfound_dist.evaluate.classifier.unit_classifier import probabilities_and_features
from retfound_dist.evaluate.finetune.finetuning import best_device
from retfound_dist.evaluate.pixels.gray_pixels import Pixels
from retfound_dist.evaluate.probe.frozen_features import Features
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.prediction.input_images import InputImage, ScanFacts, ShardSample
from retfound_dist.prediction.input_reading import PreparedImage, read_identities, read_images
from retfound_dist.prediction.prediction_parts import PartFolder, PredictedPart

PART_IMAGES = 512
"""Images in one part: about so many, in whole batches."""
FEW_IMAGES = 64
"""Fewer images are read in this process, because starting workers would take longer."""
MAX_NAMED = 5
"""Unreadable images that an error names."""
Report = Callable[[int, int], None]
"""Called with the number of images done and of all images."""


@dataclass(frozen=True)
class ImagePredictions:
    """Predictions of all images, in order. Rows of unreadable images are NaN."""

    keys: list[str]
    facts: list[ScanFacts]
    probabilities_SNC: Floats
    """Of each seed, not calibrated."""
    reasons: list[str]
    """Why an image cannot be read; empty where it can."""
    identities: list[str] = field(default_factory=list)
    """What changes with the content of an image; empty for units of images."""
    computed: int = 0
    """Images that were predicted now; the others are from finished parts."""
    features_SND: Features | None = None
    """What an attention head needs, if it was asked for."""


@dataclass
class Budget:
    """How many images may be unreadable."""

    most: int
    where: str
    """What the images are, for messages."""
    faults: list[str] = field(default_factory=list)
    """`key: reason` of each."""

    def add(self, images: Sequence[InputImage], reasons: Sequence[str]) -> None:
        """Count unreadable images; DataError where they are too many."""
        self.faults += [f"{image.key}: {text}" for image, text in zip(images, reasons, strict=True) if text]
        if len(self.faults) > self.most:
            raise DataError(
                f"{len(self.faults)} images of {self.where} cannot be read, more than --bad-sample-budget "
                f"{self.most} ({'; '.join(self.faults[:MAX_NAMED])}): repair or remove them, or raise the "
                "budget; parts that are finished are kept"
            )


def prediction_identity(facts: ClassifierFile, *, with_features: bool = False) -> str:
    """Changes with all that a part depends on besides the images."""
    tree = {**asdict(facts), "device": best_device().type, "torch": str(torch.__version__)}
    if with_features:
        tree["features"] = True
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def predict_images(
    load: Callable[[], Classifier],
    facts: ClassifierFile,
    images: Sequence[InputImage],
    parts: PartFolder | None,
    *,
    budget: Budget,
    workers: int = 1,
    on_progress: Report | None = None,
    with_features: bool = False,
) -> ImagePredictions:
    """Predict all images; DataError where more than the budget are unreadable, or all of them.

    `load`: gives the classifier on its device; called where an image must be predicted. `parts`: where
    finished parts are stored and looked for.
    `with_features`: also what an attention head needs.
    """
    groups = _in_parts(images, facts.batch)
    finished = _finished_parts(groups, parts, workers) if parts else {}
    missing = [group for number, group in enumerate(groups) if number not in finished]
    reused = len(images) - sum(map(len, missing))

    def report(computed: int) -> None:
        if on_progress:
            on_progress(reused + computed, len(images))

    report(0)
    new_parts = _compute_parts(load, missing, workers, report, with_features)
    results = []
    for number, group in enumerate(groups):
        part = finished.get(number) or next(new_parts)
        if parts and number not in finished:
            parts.write(group, part)
        budget.add(group, part.reasons)
        results.append(part)
    if images and len(budget.faults) == len(images):
        raise DataError(
            f"none of the {len(images)} images of {budget.where} can be read ({budget.faults[0]}): "
            "repair or replace the files"
        )
    empty_SNC = np.empty((len(facts.seeds), 0, len(facts.classes)))
    return ImagePredictions(
        keys=[image.key for image in images],
        facts=list(map(_known_facts, images, (fact for part in results for fact in part.facts))),
        probabilities_SNC=np.concatenate([empty_SNC, *(part.probabilities_SNC for part in results)], axis=1),
        reasons=[reason for part in results for reason in part.reasons],
        identities=[identity for part in results for identity in part.identities],
        computed=len(images) - reused,
        features_SND=_joined_features(results) if with_features and results else None,
    )


def _known_facts(image: InputImage, read: ScanFacts) -> ScanFacts:
    """The facts of an image: for a sample of a shard those that were read with it, else the listing's."""
    return read if isinstance(image.content, ShardSample) else image.facts


def _joined_features(parts: Sequence[PredictedPart]) -> Features:
    features = [part.features_SND for part in parts if part.features_SND is not None]
    return np.concatenate(features, axis=1)


def _in_parts(images: Sequence[InputImage], batch: int) -> list[Sequence[InputImage]]:
    # Whole batches, because the last batch of a part is filled up with black images.
    size = batch * max(1, PART_IMAGES // batch)
    return [images[begin : begin + size] for begin in range(0, len(images), size)]


def _finished_parts(
    groups: Sequence[Sequence[InputImage]], parts: PartFolder, workers: int
) -> dict[int, PredictedPart]:
    """Finished parts by their number: those whose images still have the same content."""
    stored = {number: part for number, group in enumerate(groups) if (part := parts.read(group))}
    # In one go, because workers take a moment to start.
    images = [image for number in stored for image in groups[number]]
    identities = iter(read_identities(images, workers if len(images) >= FEW_IMAGES else 1))
    return {
        number: part
        for number, part in stored.items()
        if list(islice(identities, len(part))) == part.identities
    }


def _compute_parts(
    load: Callable[[], Classifier],
    groups: Sequence[Sequence[InputImage]],
    workers: int,
    report: Callable[[int], None],
    with_features: bool,
) -> Iterator[PredictedPart]:
    """The predictions of each group of images. `report`: called with the number of images that are done."""
    if not groups:
        return
    classifier = load()
    images = [image for group in groups for image in group]
    interpolation = classifier.backbone.preparation.interpolation
    workers = workers if len(images) >= FEW_IMAGES else 1
    done = 0
    # Closed in any case, because that ends the workers.
    with closing(read_images(images, workers, classifier.image_size, interpolation)) as results:
        for group in groups:
            part = _Part(classifier, with_features)
            for image, prepared in islice(results, len(group)):
                part.add(image, prepared)
                if part.predict_batch():
                    report(done + len(part.images))
            yield part.finish()
            done += len(group)
            report(done)


class _Part:
    """Images of one part, and the probabilities of those that are predicted."""

    def __init__(self, classifier: Classifier, with_features: bool) -> None:
        self.classifier, self.with_features = classifier, with_features
        self._features: list[Features] = []
        self.images: list[tuple[ScanFacts, PreparedImage]] = []
        self._waiting: list[Pixels] = []
        self._predicted: list[Floats] = []

    def add(self, image: InputImage, prepared: PreparedImage) -> None:
        """Add the next image."""
        if prepared.pixels is not None:
            self._waiting.append(prepared.pixels)
        # The listing's facts are known anyway, and may be corrected before the part is used again.
        read = image.facts if isinstance(image.content, ShardSample) else ScanFacts()
        # Without its pixels, which would stay in memory until the part is finished.
        self.images.append((read, replace(prepared, pixels=None)))

    def predict_batch(self, *, last: bool = False) -> bool:
        """Predict the waiting images where they are a whole batch (or the `last` ones)."""
        if not self._waiting or (len(self._waiting) < self.classifier.facts.batch and not last):
            return False
        if self.with_features:
            probabilities_SNC, features_SND = probabilities_and_features(self.classifier, self._waiting)
            self._features.append(features_SND)
        else:
            probabilities_SNC = seed_probabilities(self.classifier, self._waiting)
        self._predicted.append(probabilities_SNC)
        self._waiting = []
        return True

    def finish(self) -> PredictedPart:
        """The part, with all images predicted."""
        self.predict_batch(last=True)
        reasons = [prepared.reason for _, prepared in self.images]
        shape = (len(self.classifier.seeds), len(reasons), len(self.classifier.classes))
        probabilities_SNC = np.full(shape, np.nan)
        if self._predicted:
            readable_N = np.array([not reason for reason in reasons])
            probabilities_SNC[:, readable_N] = np.concatenate(self._predicted, axis=1)
        facts = [read for read, _ in self.images]
        identities = [one.identity for _, one in self.images]
        return PredictedPart(facts, probabilities_SNC, reasons, identities, self._all_features(reasons))

    def _all_features(self, reasons: Sequence[str]) -> Features | None:
        """(S, N, D) of all images, 0 for those that cannot be read; None where they were not asked for."""
        if not self.with_features:
            return None
        width = self.classifier.backbone.facts.width
        features_SND = np.zeros((len(self.classifier.seeds), len(reasons), width), np.float32)
        if self._features:
            readable_N = np.array([not reason for reason in reasons])
            features_SND[:, readable_N] = np.concatenate(self._features, axis=1)
        return features_SND
