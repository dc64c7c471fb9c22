"""p of a paired bootstrap difference, and Holm's correction for many comparisons.

Sources: Davison and Hinkley, Bootstrap Methods and their Application (1997), section 4.2.3; Holm, A simple
sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.metrics import Floats

ALPHA = 0.05
"""A corrected p below this is called larger than chance, as the 95 % intervals do."""


def two_sided_p(difference_R: Floats) -> float | None:
    """Achieved significance level of a difference, from its value in each resample (R,).

    It is twice the share of resamples on the other side of 0. One resample is added to both counts, so p is
    never 0. Resamples without a value are left out. None where the difference has no interval.
    """
    if bootstrap.interval(difference_R) is None:
        return None
    defined = difference_R[np.isfinite(difference_R)]
    tail = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(defined) + 1))


def smallest_bootstrap_p(resamples: int) -> float:
    """The smallest p that `two_sided_p` can give."""
    return min(1.0, 2 / (resamples + 1))


def adjust_by_holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p of each comparison, in the order given. None stays None and is not counted."""
    ranked_p = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(ranked_p):
        # The maximum so far: a larger p never gets a smaller adjusted p.
        largest = max(largest, min(1.0, (len(ranked_p) - rank) * p))
        adjusted[place] = largest
    return adjusted
