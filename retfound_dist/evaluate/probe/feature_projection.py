"""Projects frozen features onto their two main directions (PCA), for a plot.

Shapes: N images, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from retfound_dist.evaluate.probe.frozen_features import Features

_DIGITS = 4
_FEWEST = 3
"""Two points always lie on one line."""


def project(features_ND: Features) -> dict[str, Any] | None:
    """`points` (N, 2) and the share of variance `explained` by both; None of fewer than three images.

    Each feature is brought to mean 0 and variance 1 first: a few of a ViT's are far larger than the rest.
    """
    if len(features_ND) < _FEWEST:
        return None
    scaled = StandardScaler().fit_transform(features_ND.astype(np.float64))
    # Equal images have no variance to divide into shares.
    if not scaled.any():
        return None
    # By default scikit-learn takes a random method for large inputs: the same page would differ each time.
    pca = PCA(2, svd_solver="full").fit(scaled)
    return {
        "points": pca.transform(scaled).round(_DIGITS).tolist(),
        "explained": [round(float(share), _DIGITS) for share in pca.explained_variance_ratio_],
    }
