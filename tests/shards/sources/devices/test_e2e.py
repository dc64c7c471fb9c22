"""Heidelberg .e2e: reflectances as in a .vol, patients and eyes by series, broken directories."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from retfound_dist.errors import DataError
from shards.sources.devices.volume import pseudonym
from shards.sources.devices.volume_formats import read_volumes
from tests.shards.device_files import Series, reflectance, scan_stack, ufloat16, write_e2e


def test_e2e_pixels_are_those_of_the_same_scan_in_a_vol(tmp_path: Path, test_data: Path) -> None:
    """A real .vol's reflectances have 10 bits of mantissa; as .e2e they must look the same to the level."""
    from eyepy.io.he.vol_reader import HeVolReader

    for name in ("Willis_B_716_0.vol", "valid.vol"):
        source = test_data / "device" / name
        (scan,) = HeVolReader(source).parsed_file.bscans
        raw = np.array(scan.data, np.float32)
        raw[:40] = np.finfo(np.float32).max  # as HEYEX marks what was not measured
        path = write_e2e(tmp_path / "a.e2e", [Series(1, 1, "R", raw[None])])
        (volume,) = read_volumes(str(path))
        assert (volume.slices[0][:40] == 0).all()
        assert (volume.slices[0][40:] == read_volumes(str(source))[0].slices[0][40:]).all()


def test_e2e_levels_rise_with_reflectance_and_speckle_is_not_scrambled(tmp_path: Path) -> None:
    ramp = np.repeat(np.linspace(0.001, 1, 64, dtype=np.float32)[None], 48, axis=0)
    write_e2e(tmp_path / "a.e2e", [Series(1, 1, "R", ramp[None])])
    levels = read_volumes(str(tmp_path / "a.e2e"))[0].slices[0][0].astype(int)
    assert (np.diff(levels) >= 0).all()
    assert (levels[0], levels[-1]) == (round(255 * (np.log(0.001244) + 8.3) / 8.285), 255)


def test_e2e_gives_each_series_its_own_patient_and_eye_and_slices_in_order(tmp_path: Path) -> None:
    stack = scan_stack(4)
    series = [
        Series(7, 1, "R", reflectance(stack), "first"),
        Series(7, 2, "L", reflectance(stack[:2]), "first"),
        Series(8, 3, "L", reflectance(stack[2:]), "second"),
    ]
    write_e2e(tmp_path / "a.e2e", series, lead=64)
    volumes = read_volumes(str(tmp_path / "a.e2e"))
    assert [(v.patient, v.eye, len(v.slices)) for v in volumes] == [
        (pseudonym("first"), "R", 4),
        (pseudonym("first"), "L", 2),
        (pseudonym("second"), "L", 2),
    ]
    assert (np.stack(volumes[0].slices) == stack).all()


def test_an_e2e_file_without_a_patients_number_has_the_softwares_own(tmp_path: Path) -> None:
    write_e2e(tmp_path / "a.e2e", [Series(77, 1, "R", reflectance(scan_stack(1)), "")])
    assert read_volumes(str(tmp_path / "a.e2e"))[0].patient == pseudonym(77)


def test_an_e2e_directory_in_a_circle_and_a_cut_picture_are_errors(tmp_path: Path) -> None:
    path = write_e2e(tmp_path / "a.e2e", [Series(1, 1, "R", reflectance(scan_stack(6)))])
    whole = path.read_bytes()
    last = struct.unpack_from("<I", whole, 36 + 40)[0]
    circle = bytearray(whole)
    circle[last + 44 : last + 48] = struct.pack("<I", last)
    path.write_bytes(circle)
    with pytest.raises(DataError, match="broken directory"):
        read_volumes(str(path))
    for end in (len(whole) - 1, len(whole) - 2 * 48 * 64 - 30):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match="cut short"):
            read_volumes(str(path))


def test_16_bit_floats_hold_what_they_say() -> None:
    values = np.array([0.5, 0.75, 1.0, 0.001], np.float32)
    assert ufloat16(values).tolist()[:3] == [62 << 10, (62 << 10) | 512, 63 << 10]
