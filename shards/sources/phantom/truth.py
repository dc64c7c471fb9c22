"""What is known of a generated scan, because it was drawn: answers for tasks other than the class.

    truth_fields(scan, seed=0, width=256)["thickness_um"]

Shapes: `W` columns of the image, `K` layers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shards.sources.phantom.eye import Eye, Floats, columns
from shards.sources.phantom.lesions import FLUID, SUBRPE, LesionSection
from shards.sources.phantom.phantom import PhantomScan, draw_anatomy, draw_section

TARGETS = (
    "thickness_um", "age_like", "lesions", "severity",
    "has_hole", "has_cysts", "has_bright_foci", "has_fluid", "has_deposits", "has_atrophy",
)  # fmt: skip
"""The fields, in the order of `truth_fields`."""
_SEVERITY_STEPS = (1, 3, 8)
"""Number of lesions at which severity 1, 2 and 3 begin."""
# Below 15 micrometres a deposit is a roughness of the drawn membrane, and fluid is thinner than a pixel.
_LEAST_HEIGHT = 15.0
_BRIGHT = 128.0
"""Grey that separates exudates from cysts."""


def truth_fields(scan: PhantomScan, *, seed: int, width: int) -> dict[str, float | int]:
    """The true values of one B-scan, for the sample's JSON. Flags are 0 or 1.

    thickness_um     mean distance from the inner surface of the retina to Bruch's membrane, micrometres,
                     with all lesions; the hole and the optic disc are not subtracted
    age_like         a made-up age in years that only the thickness of the healthy layers decides
    lesions          cysts, bright foci, holes, pockets of fluid and deposits that this B-scan cuts
    severity         0: no lesion; 1: 1 or 2; 2: 3 to 7; 3: 8 or more
    has_...          whether the B-scan shows this kind of lesion
    """
    anatomy = draw_anatomy(scan, seed=seed)
    x_W = columns(anatomy.eye, width)
    section = draw_section(anatomy, x_W)
    counts = _lesion_counts(section, x_W)
    lesions = sum(counts.values())
    return {
        "thickness_um": round(float(section.thick_KW.sum(0).mean()), 2),
        "age_like": age_like(anatomy.eye),
        "lesions": lesions,
        "severity": sum(lesions >= step for step in _SEVERITY_STEPS),
        **{f"has_{name}": int(count > 0) for name, count in counts.items()},
        "has_atrophy": int(section.window_W is not None and float(section.window_W.max()) > 0),
    }


def age_like(eye: Eye) -> float:
    """A made-up age in years: 50 for layers of average thickness, and 2 more for each percent less.

    The retina gets thinner with age, but by far less than here: otherwise no picture could show it.
    """
    return round(50.0 - 200.0 * (float(np.delete(eye.scale_K, [FLUID, SUBRPE]).mean()) - 1.0), 1)


def _lesion_counts(section: LesionSection, x_W: Floats) -> dict[str, int]:
    """Number of lesions of each kind inside the image."""
    inside = [blob for blob in section.blobs if x_W[0] <= blob.x <= x_W[-1]]
    return {
        "hole": int(section.hole is not None),
        "cysts": sum(1 for blob in inside if blob.grey < _BRIGHT),
        "bright_foci": sum(1 for blob in inside if blob.grey >= _BRIGHT),
        "fluid": _count_runs(section.thick_KW[FLUID] > _LEAST_HEIGHT),
        "deposits": _count_runs(section.thick_KW[SUBRPE] > _LEAST_HEIGHT),
    }


def _count_runs(present_W: NDArray[np.bool_]) -> int:
    """Number of separate stretches of columns that are True."""
    return int((np.diff(present_W.astype(np.int8), prepend=0) == 1).sum())
