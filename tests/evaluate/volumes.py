"""Sets of small volumes: some slices of an eye show what its label says, the others do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.evaluate.inputs import write_listing

LABELS = ("CSR", "NORMAL")


def eye_volumes(root: Path, patients: int = 12, slices: int = 3, marked: int = 1, seed: int = 0) -> Path:
    """`root/pNN_R_S.png` and manifest.csv: two eyes a patient, `marked` bright slices in each eye with CSR."""
    root.mkdir(parents=True)
    rows = []
    for patient in range(patients):
        label = LABELS[patient % 2]
        for eye in "LR":
            draw = np.random.default_rng([seed, patient, ord(eye)])
            bright = set(draw.permutation(slices)[:marked].tolist()) if label == "CSR" else set()
            for place in range(slices):
                pixels = draw.integers(0, 60, (40, 48)) + (120 if place in bright else 0)
                name = f"p{patient:02d}_{eye}_{place}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(root / name)
                rows.append(
                    {
                        "file": name,
                        "label": label,
                        "patient": f"p{patient:02d}",
                        "eye": eye,
                        "volume": f"v{patient:02d}{eye}",
                        "slice": str(place),
                    }
                )
    write_listing(root, rows)
    return root
