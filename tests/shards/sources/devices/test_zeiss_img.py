"""Zeiss .img: size, order, eye and patient from the file's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retfound_dist.errors import DataError
from shards.sources.devices.volume import pseudonym
from shards.sources.devices.volume_formats import read_volumes
from tests.shards.device_files import scan_stack, write_img


@pytest.mark.parametrize(
    ("name", "count", "width", "eye"),
    [
        ("P12_Macular Cube 512x128_1-2-2020_10-20-30_OD_sn1_cube_z.img", 128, 512, "R"),
        ("P12_Optic Disc Cube 200x200_1-2-2020_10-20-30_OS_sn1_cube_raw.img", 200, 200, "L"),
        ("P12_Optic Disc Cube 200x200_1-2-2020_10-20-30_OS_sn1_hidef_z.img", 2, 1000, "L"),
        ("P12_Macular Cube 512x128_1-2-2020_10-20-30_OS_sn1_hidef_z.img", 2, 1024, "L"),
        ("P12_HD 5 Line Raster_1-2-2020_10-20-30_OD_sn1_lineEnhanced.img", 5, 1024, "R"),
        ("OSCAR.img", 3, 512, None),
    ],
)
def test_zeiss_scans_stand_upright_in_order(
    tmp_path: Path, name: str, count: int, width: int, eye: str | None
) -> None:
    stack = np.zeros((count, 1024, width), np.uint8)
    stack[:, 100] = 200  # the retina's bright edge, near the top
    stack[:, :, 3] = np.arange(count)[:, None] + 1
    write_img(tmp_path / name, stack)
    (volume,) = read_volumes(str(tmp_path / name))
    assert (np.stack(volume.slices) == stack).all()
    assert volume.eye == eye
    assert volume.patient == (pseudonym("P12") if eye else None)


def test_a_zeiss_cube_of_another_size_than_its_name_says_is_an_error(tmp_path: Path) -> None:
    path = write_img(tmp_path / "P1_Macular Cube 200x200_x_OD_sn1_cube_z.img", scan_stack(2, 1024, 200))
    with pytest.raises(DataError, match="do not fit 200 B-scans of 1024x200"):
        read_volumes(str(path))
