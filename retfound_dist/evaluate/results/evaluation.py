"""An evaluation in memory: scores, predictions of the test part, fine-tuning curves."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from retfound_dist.evaluate.classifier.kept_classifier import KeptClassifier
from retfound_dist.evaluate.data.external_validation import ExternalTest
from retfound_dist.evaluate.probe.encoder_images import FEATURES_VERSION
from retfound_dist.evaluate.scores.metrics import Floats, Labels
from retfound_dist.evaluate.scores.probe_wording import OUTDATED_PROBES
from retfound_dist.evaluate.scores.ranking_sums import Ranking, rank
from retfound_dist.evaluate.units.slice_pooling import SliceScores
from retfound_dist.listing.split_units import Unit


@dataclass(frozen=True)
class Evaluation:
    """An evaluation, or one row of a comparison: scores, predictions of the test part, fine-tuning curves."""

    metrics: dict[str, Any]
    keys: tuple[str, ...]
    patients: tuple[str | None, ...]
    labels_N: Labels
    probabilities_NC: Floats
    history: list[dict[str, Any]]
    pictures: dict[str, Any] = field(default_factory=dict)
    """`page_images.make_pictures`; empty where the evaluation has none."""
    probabilities_SNC: Floats | None = None
    """Probabilities of each seed, where there are several; `probabilities_NC` is their mean."""
    probe_probabilities: dict[str, Floats] = field(default_factory=dict)
    """Probe -> its probabilities (N, C); empty without probes, and in evaluations of older versions."""
    external: ExternalTest | None = None
    """The test on another set. None after reading from files: its scores are in `metrics`."""
    val_probabilities_NC: Floats | None = None
    """Mean probabilities of the val part. None without one, and after reading from files."""
    slices: SliceScores | None = None
    """Of the images of the test part, where larger units are scored. None after reading from files."""
    classifier: KeptClassifier | None = None
    """The classifier to keep. None without one, and after reading from files."""
    history_fault: str = ""
    """A sentence about lines of history.jsonl that cannot be read; they are missing in the curves."""

    @property
    def remarks(self) -> list[str]:
        """What a user must know where this evaluation is used again."""
        is_outdated = "probe" in self.metrics and self.metrics.get("features_version") != FEATURES_VERSION
        return [text for text in (self.history_fault, OUTDATED_PROBES if is_outdated else "") if text]

    @cached_property
    def rankings(self) -> dict[int, Ranking]:
        """The images of the test part in the order of each class, by its number; without classes that no
        image has, or all."""
        return {
            c: rank(self.labels_N == c, self.probabilities_NC[:, c])
            for c in range(self.probabilities_NC.shape[1])
            if 0 < (self.labels_N == c).sum() < len(self.labels_N)
        }

    @property
    def classes(self) -> list[str]:
        """Alphabetical class names."""
        return list(self.metrics["classes"])

    @property
    def units(self) -> list[Unit]:
        """The bootstrap unit of each test image; empty where it is the patient or the image itself."""
        bootstrap = self.metrics["bootstrap"]
        return [(bootstrap["unit"], name) for name in bootstrap.get("unit_names", ())]

    @property
    def seed_probabilities_SNC(self) -> Floats:
        """(S, N, C): the probabilities of each seed, for a bootstrap over seeds."""
        return self.probabilities_NC[None] if self.probabilities_SNC is None else self.probabilities_SNC
