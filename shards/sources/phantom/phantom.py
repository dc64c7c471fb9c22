"""A generated OCT corpus: B-scans of plausible anatomy in OCTID's five classes.

`list_scans` lists the scans without pixels; `render` draws one of them. Nothing is stored: a picture depends
only on the seed and on the scan's patient, eye and place in its volume.

    scans = list_scans(patients=50, volumes_per_patient=2, slices_per_volume=9, seed=0)
    pixels_HW = render(scans[0], seed=0, height=192, width=256)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shards.sources.phantom.eye import (
    STREAM_LESION,
    STREAM_LIST,
    STREAM_SPECKLE,
    STREAM_VESSELS,
    Eye,
    Floats,
    bruch,
    columns,
    draw_eye,
    greys,
    keyed_rng,
    optic_disc,
    thicknesses,
)
from shards.sources.phantom.lesions import Lesion, LesionSection, draw_lesion
from shards.sources.phantom.optics import draw_scanner, expose
from shards.sources.phantom.tissue import PixelGrid, Vessels, draw_vessels, paint

CLASSES = ("NORMAL", "MH", "AMRD", "CSR", "DR")
"""OCTID's classes (Gholami et al. 2020): normal, macular hole, age-related macular degeneration,
central serous chorioretinopathy, diabetic retinopathy."""
EYES = ("OD", "OS")
_MACULA = 2.5
"""Distance of the outermost B-scans from the fovea, mm, where a volume is larger than its lesion."""


@dataclass(frozen=True)
class PhantomScan:
    """One B-scan that can be rendered."""

    key: str
    """Unique in the corpus, without dots."""
    label: str
    """One of `CLASSES`, the same for all of a patient's scans."""
    patient: str
    """Pseudonym, e.g. `p0012`."""
    eye: str
    """`OD` (right) or `OS` (left)."""
    volume: str
    """Patient and eye, e.g. `p0012_OD`."""
    slice: int
    """Place in the volume, from 0."""
    slices: int
    """B-scans in the volume."""
    lesion_slices: int = 0
    """B-scans that are spread evenly over the lesion; the others lie beside it. 0: all."""


def label_of(patient: int, seed: int) -> str:
    """Returns the patient's class. Five consecutive patients have each class once, in random order."""
    block, place = divmod(patient, len(CLASSES))
    # By block, so that more patients do not change the classes of the first ones.
    order = keyed_rng(seed, STREAM_LIST, block).permutation(len(CLASSES))
    return CLASSES[order[place]]


def list_scans(
    *,
    patients: int,
    volumes_per_patient: int = 1,
    slices_per_volume: int,
    seed: int,
    lesion_slices: int = 0,
) -> list[PhantomScan]:
    """Lists all scans of the corpus by patient, eye and slice. More patients do not change the first ones.

    With two volumes a patient has both eyes, with one a random eye. `lesion_slices`: as in `PhantomScan`.
    Raises ValueError for impossible counts.
    """
    if not 0 <= lesion_slices <= slices_per_volume:
        raise ValueError(
            f"{lesion_slices} of {slices_per_volume} slices cannot show the lesion: give 0 (all) to "
            f"{slices_per_volume}"
        )
    if patients < 1 or slices_per_volume < 1 or volumes_per_patient not in (1, 2):
        raise ValueError(
            f"a corpus of {patients} patients x {volumes_per_patient} volumes x {slices_per_volume}"
            " slices cannot be drawn: give at least 1 patient, 1 or 2 volumes (eyes), 1 slice"
        )
    scans = []
    for patient in range(patients):
        label, name = label_of(patient, seed), f"p{patient:04d}"
        first = int(keyed_rng(seed, STREAM_LIST, patient, 1).integers(2))
        for eye in EYES if volumes_per_patient == 2 else (EYES[first],):
            volume = f"{name}_{eye}"
            counts = slices_per_volume, lesion_slices
            scans += [
                PhantomScan(f"phantom_{volume}_s{i:02d}", label, name, eye, volume, i, *counts)
                for i in range(slices_per_volume)
            ]
    return scans


@dataclass(frozen=True)
class ScanAnatomy:
    """The anatomy that a scan shows, without pixels."""

    eye: Eye
    lesion: Lesion
    vessels: Vessels
    y: float
    """The B-scan's distance from the fovea, mm."""


def draw_anatomy(scan: PhantomScan, *, seed: int) -> ScanAnatomy:
    """Draws the scan's anatomy. The scans of a volume differ only in `y`."""
    patient, eye = int(scan.patient[1:]), EYES.index(scan.eye)
    lesion = draw_lesion(scan.label, keyed_rng(seed, STREAM_LESION, patient, eye))
    y, is_beside = _place(scan, lesion.extent, seed)
    if is_beside:
        # The lift stays: all B-scans of a volume are of one eye, at one depth.
        healthy = draw_lesion("NORMAL", keyed_rng(seed, STREAM_LESION, patient, eye))
        lesion = replace(healthy, lift=lesion.lift)
    return ScanAnatomy(
        eye=draw_eye(seed, patient, eye, lift=lesion.lift),
        lesion=lesion,
        vessels=draw_vessels(keyed_rng(seed, STREAM_VESSELS, patient, eye)),
        y=y,
    )


def _place(scan: PhantomScan, extent: float, seed: int) -> tuple[float, bool]:
    """(`ScanAnatomy.y`, whether the B-scan lies beside the lesion). `extent`: `Lesion.extent`, mm."""
    count = scan.lesion_slices or scan.slices
    patient, eye = int(scan.patient[1:]), EYES.index(scan.eye)
    # Three numbers in the key: those of two are taken by `list_scans`.
    first = int(keyed_rng(seed, STREAM_LIST, patient, eye, 2).integers(scan.slices - count + 1))
    place = scan.slice - first
    if 0 <= place < count:
        return extent * ((2 * place + 1) / count - 1.0), False
    # From the lesion's edge to the edge of the macula, evenly.
    steps, all_steps = (-place, first) if place < 0 else (place - count + 1, scan.slices - count - first)
    away = extent + (max(_MACULA, extent) - extent) * steps / all_steps
    return (-away if place < 0 else away), True


def draw_section(anatomy: ScanAnatomy, x_W: Floats) -> LesionSection:
    """The layers of a scan with its lesion. `x_W`: positions of the columns, mm from the fovea."""
    eye, y = anatomy.eye, anatomy.y
    section = LesionSection(thicknesses(eye, x_W, y, pit=anatomy.lesion.pit), greys(eye, x_W, y))
    anatomy.lesion.deform(section, x_W, y)
    return section


def render(scan: PhantomScan, *, seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Draws the scan's pixels, (height, width) grey, as a pure function of the arguments."""
    patient, side = int(scan.patient[1:]), EYES.index(scan.eye)
    anatomy = draw_anatomy(scan, seed=seed)
    eye, y = anatomy.eye, anatomy.y
    x_W = columns(eye, width)
    z_H1 = np.asarray((np.arange(height) + 0.5) / height * eye.depth, np.float32)[:, None]
    section = draw_section(anatomy, x_W)
    grey_HW = paint(
        PixelGrid(x_W, z_H1, soft=max(eye.depth / height, 6.0), y=y),
        section,
        anatomy.vessels,
        bruch(eye, x_W, y),
        optic_disc(eye, x_W, y),
        (seed, patient, side),
    )
    # Only speckle differs from slice to slice at random. Everything else is continuous through the volume.
    noise = keyed_rng(seed, STREAM_SPECKLE, patient, side, scan.slice)
    return expose(grey_HW, draw_scanner(seed, patient), noise)
