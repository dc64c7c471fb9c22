"""Drawn predictions of a classifier that is often right, with resamples of their patients."""

from __future__ import annotations

import numpy as np

from retfound_dist.evaluate.clinical.scored_images import ScoredImages
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.metrics import Floats, Labels


def drawn_predictions(images: int, classes: int, seeds: int = 1, seed: int = 0) -> tuple[Labels, Floats]:
    """Labels (N,) and probabilities (S, N, C), rounded; some probabilities are equal."""
    draw = np.random.default_rng(seed)
    labels_N = draw.integers(0, classes, images)
    noise_SNC = draw.dirichlet(np.ones(classes), (seeds, images))
    p_SNC = noise_SNC + np.eye(classes)[labels_N] * draw.random((images, 1))
    return labels_N, (p_SNC / p_SNC.sum(2, keepdims=True)).round(2)


def scored(
    labels_N: Labels,
    probabilities_SNC: Floats,
    resamples: int = 60,
    each: int = 2,
    temperature: float = 1.0,
    classes: tuple[str, ...] | None = None,
) -> ScoredImages:
    """The images with resamples of patients; every patient has so many images."""
    units_N = np.arange(len(labels_N)) // each
    names = classes or tuple("ABCDEFGH"[: probabilities_SNC.shape[2]])
    weights_RN = bootstrap.resample(units_N, resamples, 0)
    return ScoredImages(names, labels_N, probabilities_SNC, weights_RN, units_N, temperature)


def scored_by(score: list[float], truth: list[int], resamples: int = 60, each: int = 1) -> ScoredImages:
    """Two classes, A and B, by the probability of B; patients with `each` images."""
    p_N = np.array(score)
    return scored(np.array(truth), np.stack([1 - p_N, p_N], axis=1).round(8)[None], resamples, each)
