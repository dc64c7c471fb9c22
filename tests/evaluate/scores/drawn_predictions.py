"""Predictions for tests of scores, drawn at random."""

from __future__ import annotations

import numpy as np


def predictions(n: int = 200, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1)
    labels = draw.integers(0, classes, n)
    p = draw.dirichlet(np.ones(classes), n) + 0.5 * np.eye(classes)[labels]
    p = np.round(p / p.sum(1, keepdims=True), 2) + 0.01  # ties
    return labels, p / p.sum(1, keepdims=True)
