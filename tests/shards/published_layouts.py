"""Tiny copies of the published data sets' folders, for the adapters' tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retfound_dist.config.loading import build
from retfound_dist.config.schema import PackConfig, Phantom, Source
from shards.images.scan import SourceListing
from shards.sources.adapters import open_source
from tests.shards.pack_inputs import scan_pixels, write_image


def list_source(kind: str, path: Path) -> SourceListing:
    """What the adapter of this kind lists below a folder."""
    return open_source(Source(kind=kind, path=str(path)), Phantom())


def sources_config(tmp_path: Path, sources: list[dict[str, Any]], **settings: str) -> PackConfig:
    """A config that packs several sources to `tmp_path/out`."""
    return build(PackConfig, {"sources": sources, "out": {"url": f"{tmp_path}/out"}, **settings}, "test")


def write_octa500(root: Path) -> Path:
    """Two volumes of three slices in each field, and projections that are no B-scans."""
    for field, first in (("6mm", 10001), ("3mm", 10301)):
        for volume in (first, first + 1):
            for place in (1, 2, 10):
                write_image(root / f"OCTA_{field}/OCT/{volume}/{place}.bmp", volume * 20 + place)
        write_image(root / f"OCTA_{field}/Projection Maps/OCT(FULL)/{first}.bmp", 1)
    return root


def write_labels_xlsx(path: Path) -> None:
    """OCTA-500's spreadsheet, of three of its eyes."""
    from openpyxl import Workbook

    book = Workbook()
    rows = [
        ("ID", "Sex", "OS/OD", "Age", "Disease"),
        (10001, "M", "OD", 61, "AMD"),
        (10002, "F", "OS", 40, "NORMAL"),
        (10301, "F", "OS", 55, "DR"),
    ]
    for row in rows:
        book.active.append(row)
    book.save(path)


def write_goals(root: Path) -> Path:
    """Three images in train with masks and diagnoses, two in test without."""
    for part, count in (("Train", 3), ("Test", 2)):
        for number in range(1, count + 1):
            write_image(
                root / part / "Image" / f"{number:04d}.png", 10 * count + number, height=800, width=1100
            )
    for number in (1, 2, 3):
        mask = np.repeat(np.array([0, 80, 160, 255], np.uint8), 200)[:, None].repeat(1100, 1)
        path = root / "Train" / "Layer_Masks" / f"{number:04d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(mask).save(path)
    (root / "Train_GC_GT.csv").write_text("ImgName,GC_Label\n0001,1\n0002,0\n0003,1\n")
    return root


def write_duke(root: Path, subjects: tuple[int, ...] = (1, 10), slices: int = 61) -> Path:
    """Subjects with `images` as floats of 0 to 255, small."""
    from scipy.io import savemat

    root.mkdir(parents=True, exist_ok=True)
    for subject in subjects:
        images = np.stack([scan_pixels(100 * subject + n, 48, 40) for n in range(slices)], -1).astype(float)
        drawn = np.zeros_like(images)
        savemat(
            root / f"Subject_{subject:02d}.mat",
            {"images": images, "manualFluid1": drawn},
            do_compression=True,
        )
    return root
