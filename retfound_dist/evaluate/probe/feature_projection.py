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
_MIN_IMAGES = 3
"""Two images always lie on one line."""


def project(features_ND: Features) -> dict[str, Any] | None:
    """`points` (N, 2), and the share of variance `explained` by each direction; None below three images.

    Each feature is scaled to mean 0 and variance 1 first, because a few features of a ViT are much larger.
    """
    if len(features_ND) < _MIN_IMAGES:
        return None
    scaled = StandardScaler().fit_transform(features_ND.astype(np.float64))
    # Equal images have no variance, so the shares would be 0 / 0.
    if not scaled.any():
        return None
    # By default scikit-learn uses a random method for large inputs: the page would differ each time.
    pca = PCA(2, svd_solver="full").fit(scaled)
    return {
        "points": pca.transform(scaled).round(_DIGITS).tolist(),
        "explained": [round(float(share), _DIGITS) for share in pca.explained_variance_ratio_],
    }
