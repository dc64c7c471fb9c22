"""The probes of an evaluation: fitted on the train part, scored on the test part. N images, C classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retfound_dist.config.schema import Probe
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.starting_weights import StartingWeights
from retfound_dist.evaluate.probe import probing
from retfound_dist.evaluate.probe.attentive_probe import limit_note, open_tokens
from retfound_dist.evaluate.probe.encoder_images import EncoderImages
from retfound_dist.evaluate.probe.frozen_features import Features
from retfound_dist.evaluate.scores import probe_wording
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.runtime.progress import ProgressDisplay


def predict_test_part(
    start: StartingWeights,
    features: Mapping[str, Features],
    data: LabelledSet,
    probe: Probe,
    show: ProgressDisplay,
) -> dict[str, Floats]:
    """The test part's probabilities (N, C) of each probe, fitted on train. `features`: of train and test."""
    train = data.parts["train"]
    read_tokens = open_tokens(
        start,
        EncoderImages(data, ("train", "test"), start.backbone),
        train.labels,
        probing.groups_of(train),
        probe,
        show,
    )
    show.begin("probes of frozen features")
    return probing.fit_and_predict(
        features["train"], train, features["test"], len(data.classes), probe, read_tokens
    )


def score_test_part(
    probabilities: Mapping[str, Floats],
    data: LabelledSet,
    probe: Probe,
    resamples: int,
    show: ProgressDisplay,
) -> dict[str, Any]:
    """The entry `probe` of metrics.json. A line says whether the attentive probe is better."""
    train, test = data.parts["train"], data.parts["test"]
    scored = probing.score_probes(
        test.labels,
        probabilities,
        probing.groups_of(test),
        data.classes,
        resamples,
        limit_note(train.labels, probing.groups_of(train), probe),
    )
    for sentence in probe_wording.attentive_gain(scored):
        show.say(sentence)
    return scored
