"""Each format built in its documented layout: pixels, scaling, patient, eye, slices, and never a name."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.cli import main
from retfound_dist.errors import DataError
from retfound_dist.formats.shard_set import read_manifest
from shards.people.pseudonyms import patient_digest
from shards.people.secret import find_secret
from shards.sources.devices.device import list_device
from shards.sources.devices.volume import pseudonym
from shards.sources.devices.volume_formats import read_volumes
from tests.shards.device_files import (
    NUMBER,
    SECRETS,
    Series,
    reflectance,
    scan_stack,
    ufloat16,
    write_all,
    write_bioptigen,
    write_dicom,
    write_e2e,
    write_img,
    write_topcon,
)

PERSON = pseudonym(NUMBER)


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


@pytest.mark.parametrize("chunk", ["@IMG_SCAN_03", "@IMG_MOT_COMP_03", "@IMG_JPEG"])
@pytest.mark.parametrize("end", [".fds", ".fda"])
def test_topcon_pixels_patient_and_eye(tmp_path: Path, chunk: str, end: str) -> None:
    stack = scan_stack(3).astype(np.uint16) * 200
    stack[0] //= 4
    path = write_topcon(tmp_path / f"a{end}", chunk, stack, eye=0)
    (volume,) = read_volumes(str(path))
    wanted = np.clip(stack * (255 / np.percentile(stack, 99.9)), 0, 255)
    assert np.abs(np.stack(volume.slices) - wanted).max() <= 0.51
    assert (volume.eye, volume.patient) == ("R", PERSON)


def test_topcon_8_bit_pictures_keep_their_levels(tmp_path: Path) -> None:
    (volume,) = read_volumes(str(write_topcon(tmp_path / "a.fda", "@IMG_JPEG", scan_stack(2))))
    assert (np.stack(volume.slices) == scan_stack(2)).all()


def test_topcon_pixels_are_found_behind_the_longer_header_too(tmp_path: Path) -> None:
    stack = scan_stack(3).astype(np.uint16)
    found = []
    for longer in (False, True):
        path = write_topcon(tmp_path / "a.fda", "@IMG_MOT_COMP_03", stack, longer=longer)
        found.append(np.stack(read_volumes(str(path))[0].slices))
    assert (found[0] == found[1]).all()


@pytest.mark.parametrize("lost", [1, 1_000, 3_000])
def test_a_topcon_file_that_is_cut_short_is_an_error(tmp_path: Path, lost: int) -> None:
    path = write_topcon(tmp_path / "a.fda", "@IMG_JPEG", scan_stack(3).astype(np.uint16))
    path.write_bytes(path.read_bytes()[: -lost - 1])
    with pytest.raises(DataError, match="cut short"):
        read_volumes(str(path))


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
    with pytest.raises(DataError, match="not 200 B-scans of 1024x200"):
        read_volumes(str(path))


def test_bioptigen_frames_become_volumes_of_upright_scans(tmp_path: Path) -> None:
    stack = scan_stack(4).astype(np.uint16) * 100
    write_bioptigen(tmp_path / "Smith_OS_V_12x12.OCT", stack)
    (volume,) = read_volumes(str(tmp_path / "Smith_OS_V_12x12.OCT"))
    wanted = np.clip(stack * (255 / np.percentile(stack, 99.9)), 0, 255)
    assert np.abs(np.stack(volume.slices) - wanted).max() <= 0.51
    assert (volume.eye, volume.patient) == ("L", None)
    write_bioptigen(tmp_path / "b.OCT", stack, scans=2)
    assert [len(v.slices) for v in read_volumes(str(tmp_path / "b.OCT"))] == [2, 2]


def test_bioptigen_frames_of_other_sizes_are_no_volume(tmp_path: Path) -> None:
    path = write_bioptigen(tmp_path / "a.OCT", scan_stack(3).astype(np.uint16))
    whole = bytearray(path.read_bytes())
    at = whole.rindex(b"FRAMELINES") + len("FRAMELINES") + 4
    whole[at : at + 4] = struct.pack("<I", 8)
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"no volumes of|not a readable"):
        read_volumes(str(path))


def test_a_sound_file_of_every_format_packs_and_nothing_tells_whose_it_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Names, number and birth date are in the files, and in the name of a folder; broken ones are told too."""
    files = write_all(tmp_path / "in" / "train" / "Mühlmann_Erika")
    for path in files.values():
        (path.parent / f"Mühlmann_cut{path.suffix}").write_bytes(path.read_bytes()[:-700])
    listed = list_device(str(tmp_path / "in")).scans
    assert sum(scan.slice is not None for scan in listed) >= 8 * 3 + 1
    known = {scan.patient for scan in listed if scan.patient}
    assert PERSON in known
    config = tmp_path / "c.toml"
    config.write_text(
        f'[source]\nkind = "device"\npath = "{tmp_path}/in"\n[out]\nurl = "{tmp_path}/out"\nbad_sample_budget = 99\n'
    )
    for more in (["--dry-run"], []):
        assert main(["pack", str(config), *more]) == 0
    assert read_manifest(f"{tmp_path}/out").samples >= 8 * 3 + 1  # none is a copy of another's
    assert main(["verify", f"{tmp_path}/out"]) == 0
    said = capfd.readouterr()
    whole = "\n".join([said.out, said.err]).encode()
    whole += b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    for secret in SECRETS:
        for coding in ("latin-1", "utf-8", "utf-16-le"):
            assert secret.encode(coding) not in whole, secret
    assert str(PERSON).encode() not in whole
    assert patient_digest(str(PERSON), find_secret().digest).encode() in whole


@pytest.mark.parametrize("end", [".fda", ".fds", ".e2e", ".dcm"])
def test_an_umlaut_in_a_name_neither_hides_the_scans_nor_the_patient(tmp_path: Path, end: str) -> None:
    (volume, *_) = read_volumes(str(write_all(tmp_path)[end]))
    assert (len(volume.slices), volume.patient) == (3, PERSON)


def test_a_dicom_of_colour_or_one_frame_is_read(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", scan_stack(1))
    assert len(read_volumes(str(path))[0].slices) == 1
    colour = np.repeat(scan_stack(2)[..., None], 3, axis=3)
    more = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    path = write_dicom(tmp_path / "b.dcm", colour, **more)
    assert read_volumes(str(path))[0].slices[1].shape == (48, 64, 3)


def test_16_bit_floats_hold_what_they_say() -> None:
    values = np.array([0.5, 0.75, 1.0, 0.001], np.float32)
    assert ufloat16(values).tolist()[:3] == [62 << 10, (62 << 10) | 512, 63 << 10]


def test_a_picture_in_a_topcon_chunk_may_not_be_larger_than_it_says(tmp_path: Path) -> None:
    path = write_topcon(tmp_path / "a.fda", "@IMG_JPEG", scan_stack(2))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(struct.pack("<II", 64, 48), struct.pack("<II", 64, 40), 1))
    with pytest.raises(DataError, match="holds a picture of 64x48"):
        read_volumes(str(path))
    assert Image.MAX_IMAGE_PIXELS
