"""Each format built in its documented layout: pixels, scaling, patient, eye, slices, and never a name."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest

from retfound_dist.cli import main
from retfound_dist.errors import DataError
from retfound_dist.formats.shard_set import read_manifest
from shards.people.pseudonyms import patient_digest
from shards.people.secret import find_secret
from shards.sources.devices.device import list_device
from shards.sources.devices.volume import pseudonym
from shards.sources.devices.volume_formats import (
    EXPERIMENTAL,
    READERS,
    TESTED_ON_REAL_FILES,
    experimental_notes,
    read_volumes,
)
from tests import ROOT
from tests.shards.device_files import (
    NUMBER,
    SECRETS,
    scan_stack,
    write_all,
    write_bioptigen,
    write_dicom,
)

PERSON = pseudonym(NUMBER)


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
    with pytest.raises(DataError, match=r"not whole volumes of|not a readable"):
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


def test_readers_count_as_tested_where_real_files_are_at_hand(test_data: Path) -> None:
    there = {path.suffix.lower() for path in (test_data / "device").rglob("*")}
    assert there & set(READERS) == TESTED_ON_REAL_FILES


def test_the_page_and_the_help_call_the_same_readers_experimental() -> None:
    page = (ROOT / "docs/device_files.md").read_text()
    (row,) = [line for line in page.splitlines() if line.endswith("| experimental |")]
    assert set(re.findall(r"`(\.\w+)`", row)) == set(EXPERIMENTAL)
    (text,) = re.findall(r"\(([^()]*) are experimental", (ROOT / "docs/config.md").read_text())
    assert text.endswith(" and DICOM")
    assert {*re.findall(r"`(\.\w+)`", text), ".dcm", ".dicom", ".ima"} == set(EXPERIMENTAL)


def test_a_pack_names_its_experimental_readers_in_one_line(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a", scan_stack(2))
    write_bioptigen(tmp_path / "b.OCT", scan_stack(2).astype(np.uint16))
    (note,) = [note for note in list_device(str(tmp_path)).notes if "experimental" in note]
    assert note == (
        "experimental: the reader of .oct, .dcm files was not tested with real files: "
        "look at the contact sheet (examples.jpg) before you train"
    )
    assert list(experimental_notes([".vol", ".xml"])) == []
