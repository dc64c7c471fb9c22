"""Device files: the makers' own where we have them, built ones for the other formats."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.config.loading import build
from retfound_dist.config.schema import PackConfig
from retfound_dist.errors import DataError
from shards.pack import pack
from shards.people.pseudonyms import patient_digest
from shards.people.secret import find_secret
from shards.sources.devices import device
from shards.sources.devices.device import list_device
from shards.sources.devices.volume import pseudonym
from shards.sources.devices.volume_formats import read_volumes
from tests.shards.device_files import FIRST, NAME, NUMBER, scan_stack, write_dicom
from tests.shards.pack_inputs import write_image


def test_a_heidelberg_volume_looks_as_the_maker_shows_it(test_data: Path) -> None:
    """The same device's JPEGs in OCT2017: medians and bright ends of the tissue agree within some levels."""
    (volume,) = read_volumes(str(test_data / "device" / "Willis_B_716_0.vol"))
    (scan,) = volume.slices
    shown = np.asarray(Image.open(sorted((test_data / "kermany" / "NORMAL").iterdir())[0]).convert("L"))
    assert (scan.shape, scan.dtype, volume.eye) == ((496, 768), np.uint8, "R")
    shown = shown[:, (shown < 250).all(axis=0)] if (shown < 250).all(axis=0).any() else shown[30:]
    assert abs(float(np.percentile(scan, 99)) - float(np.percentile(shown, 99))) < 40
    assert 20 < scan.mean() < 60


def test_a_circular_scan_is_read_from_vol_and_from_matlab(test_data: Path) -> None:
    for name in ("valid.vol", "circularScan.mat"):
        (volume,) = read_volumes(str(test_data / "device" / name))
        assert [scan.shape for scan in volume.slices] == [(496, 768)]
        assert volume.eye == "R"
        assert 20 < volume.slices[0].mean() < 60


def test_a_heyex_xml_export_gives_the_scans_it_names(test_data: Path) -> None:
    path = test_data / "device" / "heyex_xml"
    (volume,) = read_volumes(str(path / "test_dummy.xml"))
    assert len(volume.slices) == 10
    assert (volume.slices[0] == np.asarray(Image.open(path / "B1.tif").convert("L"))).all()


def test_every_real_device_file_is_listed_with_patient_eye_volume_and_slice(test_data: Path) -> None:
    found = list_device(str(test_data / "device"))
    assert len(found.scans) == 1 + 1 + 10 + 1 + 10
    assert all(s.patient and s.volume and s.slice is not None and s.eye == "R" for s in found.scans)


def test_no_name_number_or_file_name_of_a_patient_reaches_the_shards(tmp_path: Path) -> None:
    folder = tmp_path / "in" / f"{NAME}_{FIRST}"
    folder.mkdir(parents=True)
    write_dicom(folder / f"{NAME}_OD.dcm", scan_stack(3))
    write_dicom(folder / f"{NAME}_photo.dcm", scan_stack(1), modality="OP")
    write_dicom(folder / f"{NAME}_empty.dcm", scan_stack(1)[:, :, :0])
    tree = {"source": {"kind": "device", "path": str(tmp_path / "in")}, "out": {"url": f"{tmp_path}/out"}}
    manifest = pack(build(PackConfig, tree, "test"))
    assert (manifest.samples, len(manifest.skipped)) == (3, 1)
    whole = b"".join(path.read_bytes() for path in Path(manifest.url).iterdir())
    for secret in (NAME.encode(), FIRST.encode(), NUMBER.encode(), b"19500212"):
        assert secret not in whole
    plain = pseudonym(NUMBER)
    assert plain is not None
    assert plain.encode() not in whole  # whoever has a list of numbers could try them out
    assert patient_digest(plain, find_secret().digest).encode() in whole
    assert "no Columns" in manifest.skipped[0]["reason"]
    assert any("modality OP, not OPT" in note for note in manifest.sources["device"]["notes"])


def test_dicom_keeps_its_frames_eye_and_patient(tmp_path: Path) -> None:
    stack = scan_stack(4)
    write_dicom(tmp_path / "a.dcm", stack)
    (volume,) = read_volumes(str(tmp_path / "a.dcm"))
    assert (np.stack(volume.slices) == stack).all()
    assert (volume.eye, volume.patient) == ("L", pseudonym(NUMBER))


def test_deep_dicom_is_scaled_over_the_whole_volume(tmp_path: Path) -> None:
    stack = scan_stack(2).astype(np.uint16) * 16
    stack[0] //= 4
    write_dicom(tmp_path / "a.dcm", stack)
    (volume,) = read_volumes(str(tmp_path / "a.dcm"))
    assert volume.slices[0].mean() < 0.4 * volume.slices[1].mean()


def test_any_matlab_array_of_images_is_a_volume(tmp_path: Path) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "a.mat", {"images": scan_stack(5).transpose(1, 2, 0), "mask": np.zeros((48, 64, 9))})
    (volume,) = read_volumes(str(tmp_path / "a.mat"))
    assert (np.stack(volume.slices) == scan_stack(5)).all()


@pytest.mark.parametrize("end", [".vol", ".e2e", ".xml", ".fda", ".fds", ".img", ".oct", ".dcm", ".mat"])
@pytest.mark.parametrize("content", [b"", b"\xff" * 5000, b"HSF-OCT-103\0" + b"\xff\xff\xff\x7f" * 40])
def test_a_broken_file_of_any_format_is_one_clean_error(tmp_path: Path, end: str, content: bytes) -> None:
    path = tmp_path / f"broken{end}"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_volumes(str(path))
    assert "\n" not in str(caught.value)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path, test_data: Path) -> None:
    (tmp_path / "in").mkdir()
    os.symlink(test_data / "device" / "valid.vol", tmp_path / "in" / "a.vol")
    with pytest.raises(DataError, match="1 link that leads out of the folder") as caught:
        list_device(str(tmp_path / "in"))
    assert "a.vol" not in str(caught.value)


def test_xml_cannot_name_an_image_outside_its_folder(tmp_path: Path, test_data: Path) -> None:
    text = (test_data / "device" / "heyex_xml" / "test_dummy.xml").read_text(errors="replace")
    write_image(tmp_path / "secret.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.xml").write_text(text.replace("B1.tif", "../secret.png"))
    with pytest.raises(DataError, match="leads out of its folder"):
        read_volumes(str(tmp_path / "in" / "a.xml"))


def test_decoded_volumes_are_kept_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    monkeypatch.setattr(device, "CACHE_BYTES", 2 * 4 * 48 * 64)
    device._volume_cache.clear()
    for number in range(5):
        savemat(tmp_path / f"{number}.mat", {"images": scan_stack(4).transpose(1, 2, 0)})
    assert len(list_device(str(tmp_path)).scans) == 20
    assert len(device._volume_cache) == 2


def test_json_of_a_device_sample_holds_only_what_it_should(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", scan_stack(1))
    (scan,) = list_device(str(tmp_path)).scans
    assert set(json.loads(json.dumps(scan.json_fields()))) == {
        "label", "patient", "eye", "volume", "slice", "source", "split"
    }  # fmt: skip
