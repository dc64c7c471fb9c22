"""The data sets' adapters, on folders laid out as the sets are when they are downloaded."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.config.loading import build
from retfound_dist.config.schema import PackConfig, PackOut, Phantom, Source
from retfound_dist.errors import ConfigError, DataError
from shards.commands import pack_command
from shards.images.scan import SourceListing
from shards.pack import pack, plan_pack
from shards.sources.adapters import open_source
from tests.shards.device_files import scan_stack, write_topcon
from tests.shards.pack_inputs import scan_pixels, write_image
from tests.shards.published_layouts import write_duke, write_goals, write_labels_xlsx, write_octa500


def opened(kind: str, path: Path) -> SourceListing:
    return open_source(Source(kind=kind, path=str(path)), Phantom())


def test_octa500_gives_every_slice_its_volume_and_disease_and_names_what_is_missing(tmp_path: Path) -> None:
    root = write_octa500(tmp_path / "OCTA-500")
    write_labels_xlsx(root / "OCTA_6mm" / "Text labels.xlsx")
    found = opened("octa500", root)
    assert len(found.scans) == 12
    first = found.scans[-1]
    assert (first.volume, first.slice, first.patient, first.label, first.eye) == (
        "10002",
        10,
        "10002",
        "NORMAL",
        "L",
    )
    notes = "\n".join(found.notes)
    assert "OCTA_6mm: 298 of 300 volumes missing: 10003, 10004" in notes
    assert "OCTA_3mm: 2 volumes without all their slices: 10301 (3 of 304)" in notes
    assert "labels of 3 of 500 volumes" in notes


def test_a_whole_octa500_volume_is_not_called_short(tmp_path: Path) -> None:
    source = write_image(tmp_path / "one.bmp")
    folder = tmp_path / "set" / "OCTA_3mm" / "OCT" / "10500"
    folder.mkdir(parents=True)
    for place in range(1, 305):
        shutil.copy(source, folder / f"{place}.bmp")
    assert not any("without all" in note for note in opened("octa500", tmp_path / "set").notes)


def test_duke_slices_keep_their_own_levels_and_missing_subjects_are_named(tmp_path: Path) -> None:
    found = opened("duke_dme", write_duke(tmp_path / "duke"))
    assert len(found.scans) == 122
    assert found.notes == (
        "8 of 10 subjects missing: Subject_02, Subject_03, Subject_04, Subject_05, Subject_06 and 3 more",
    )
    scan = found.scans[61 + 7]
    assert (scan.patient, scan.slice, scan.label) == ("Subject_10", 7, "DME")
    assert (np.asarray(scan.read()) == scan_pixels(1007, 48, 40)).all()


def test_a_duke_subject_with_too_few_slices_is_named(tmp_path: Path) -> None:
    found = opened("duke_dme", write_duke(tmp_path / "duke", (3,), slices=5))
    assert "Subject_03: 5 of 61 slices" in found.notes


def test_goals_keeps_verdict_and_layers_with_the_sample(tmp_path: Path) -> None:
    root = write_goals(tmp_path / "GOALS")
    found = opened("goals", root)
    assert Counter((s.split, s.label) for s in found.scans) == {
        ("train", "glaucoma"): 2,
        ("train", "normal"): 1,
        ("test", None): 2,
    }
    assert "5 images found, 200 published: test 2 of 100, train 3 of 100" in found.notes
    manifest = pack(whole_config(tmp_path, [{"kind": "goals", "path": str(root)}]))
    fields = [json.loads(data) for data in _members(manifest.url, ".json")]
    masks = [base64.b64decode(f["layer_mask_png"]) for f in fields if "layer_mask_png" in f]
    assert [np.unique(np.asarray(Image.open(io.BytesIO(m)))).tolist() for m in masks] == [
        [0, 80, 160, 255]
    ] * 3


def test_topcon_counts_its_parts(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 1), ("test", 1)):
        for number in range(count):
            write_image(tmp_path / "t" / part / f"{number}.png", number)
    found = opened("topcon", tmp_path / "t")
    assert found.notes == ("5 images found, 1,280 published: test 1 of 256, train 3 of 768, val 1 of 256",)


@pytest.mark.parametrize(
    ("file", "label"),
    [
        ("NORMAL/NORMAL1.jpeg", "NORMAL"),
        ("train/ANORMAL/x.jpg", "NORMAL"),
        ("MH (12).jpg", "MH"),
        ("AMRD33.jpg", "AMRD"),
        ("test/CSR/1.jpg", "CSR"),
        ("DR107.jpeg", "DR"),
        ("notes/readme1.png", None),
    ],
)
def test_octid_labels_come_from_folder_or_name(tmp_path: Path, file: str, label: str | None) -> None:
    write_image(tmp_path / "o" / file)
    write_image(tmp_path / "o" / "NORMAL" / "NORMAL206.jpeg", 5)
    found = {scan.origin: scan.label for scan in opened("octid", tmp_path / "o").scans}
    assert found.get(file) == label


def test_octid_says_what_differs_from_the_572_published(tmp_path: Path) -> None:
    write_image(tmp_path / "o" / "MH" / "MH1.jpg")
    write_image(tmp_path / "o" / "logo.png", 3)
    notes = opened("octid", tmp_path / "o").notes
    assert notes[0].startswith("1 images found, 572 published: AMRD 0 of 55")
    assert notes[1] == "1 files left aside (no class in folder or name): logo.png"


def test_octdl_joins_patients_that_share_a_picture(tmp_path: Path) -> None:
    one = write_image(tmp_path / "d" / "AMD" / "amd_5_1.jpg", 1)
    shutil.copy(one, tmp_path / "d" / "AMD" / "amd_7_1.jpg")
    write_image(tmp_path / "d" / "AMD" / "amd_7_2.jpg", 2)
    write_image(tmp_path / "d" / "NO" / "no_9_1.jpg", 3)
    found = opened("octdl", tmp_path / "d")
    assert [scan.patient for scan in found.scans] == ["5", "5", "5", "9"]
    assert "1 patients joined to others that share a picture with them" in found.notes


def test_the_real_octdl_has_the_patients_its_list_names(test_data: Path) -> None:
    found = opened("octdl", test_data / "octdl")
    listed = opened("folder", test_data / "octdl")
    groups = {scan.origin: scan.patient for scan in listed.scans}
    assert (len(found.scans), len({scan.patient for scan in found.scans})) == (1527, 614)
    assert len({(scan.patient, groups[scan.origin]) for scan in found.scans}) == 614


def test_the_real_kermany_images_have_class_and_patient(test_data: Path) -> None:
    found = opened("kermany", test_data / "kermany")
    assert len(found.scans) == 46
    assert {scan.label for scan in found.scans} == {"CNV", "DME", "DRUSEN", "NORMAL"}
    assert "46 images found, 109,309 published" in found.notes[0].replace("no part 46 of 0, ", "")
    assert found.scans[0].patient == "1016042"


def test_published_parts_that_share_patients_are_not_used(tmp_path: Path) -> None:
    write_image(tmp_path / "k" / "train" / "CNV" / "CNV-7-1.jpeg", 1)
    write_image(tmp_path / "k" / "test" / "CNV" / "CNV-7-2.jpeg", 2)
    found = opened("kermany", tmp_path / "k")
    assert [scan.split for scan in found.scans] == [None, None]
    assert any(note.startswith("1 patients are in more than one published part") for note in found.notes)


def test_a_csv_list_gives_every_field_and_says_which_files_are_not_there(tmp_path: Path) -> None:
    write_image(tmp_path / "c" / "x" / "1.png")
    listing = tmp_path / "c" / "list.csv"
    listing.write_text(
        "file,label,patient,eye,volume,slice,split\nx/1.png,A,p1,L,v1,4,val\nx/2.png,B,p2,,,,\n"
    )
    found = opened("csv", listing)
    scan = found.scans[0]
    assert (scan.label, scan.patient, scan.eye, scan.volume, scan.slice, scan.split) == (
        "A",
        "p1",
        "L",
        "v1",
        4,
        "val",
    )
    assert found.notes[0].startswith("list.csv: file <- 'file', label <- 'label', patient <- 'patient'")
    assert found.notes[1:] == (
        "list.csv: volume is given for 1 of 2 files",
        "list.csv: 1 of 2 listed files are not there: x/2.png",
    )


def test_a_csv_list_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "secret.png")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "list.csv").write_text("file\n../secret.png\n")
    with pytest.raises(DataError, match="leads out of its folder"):
        opened("csv", tmp_path / "c" / "list.csv").scans[0].read()


@pytest.mark.parametrize(
    "kind", ["octid", "octdl", "kermany", "octa500", "duke_dme", "goals", "topcon", "device"]
)
def test_a_folder_of_another_kind_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    (tmp_path / "wrong").mkdir()
    if kind != "topcon":
        write_image(tmp_path / "wrong" / "holiday.png")
    with pytest.raises(DataError, match=r"source\.path|device files") as caught:
        opened(kind, tmp_path / "wrong")
    assert "\n" not in str(caught.value)


def whole_config(tmp_path: Path, sources: list[dict[str, str]], **more: str) -> PackConfig:
    return build(PackConfig, {"sources": sources, "out": {"url": f"{tmp_path}/out"}, **more}, "test")


def corpus(root: Path) -> Path:
    """All four sets of the preset, tiny, where the preset looks for them."""
    write_octa500(root / "OCTA-500")
    write_duke(root / "2015_BOE_Chiu", (1,), 3)
    write_goals(root / "GOALS")
    for part in ("train", "val", "test"):
        write_image(root / "Topcon" / part / "1.png", len(part))
    return root


def test_the_preset_of_four_sets_lists_each_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [f"root={corpus(tmp_path / 'data')}", f"out.url={tmp_path}/out"]
    assert pack_command("configs/pack_oct180k.toml", overrides, dry_run=True) == 0
    said = capsys.readouterr().out
    assert "would pack 23 images" in said
    for line in ("  duke_dme: 3 images", "  goals: 5 images", "  octa500: 12 images", "  topcon: 3 images"):
        assert line in said
    assert "9 of 10 subjects missing" in said
    assert not (tmp_path / "out").exists()


def test_four_sets_pack_into_one_with_counts_and_notes_by_source(tmp_path: Path) -> None:
    sources = [
        {"kind": kind, "path": folder}
        for kind, folder in (("octa500", "OCTA-500"), ("duke_dme", "2015_BOE_Chiu"), ("goals", "GOALS"))
    ]
    manifest = pack(whole_config(tmp_path, sources, root=str(corpus(tmp_path / "data"))))
    assert {name: s["samples"] for name, s in manifest.sources.items()} == {
        "octa500": 12,
        "duke_dme": 3,
        "goals": 5,
    }
    assert manifest.sources["duke_dme"]["kind"] == "duke_dme"
    assert manifest.sources["duke_dme"]["notes"][0] == "Subject_01: 3 of 61 slices"


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "1.png")
    twice = tuple(Source(path=str(tmp_path / "a")) for _ in range(2))
    with pytest.raises(ConfigError, match="two sources are called a"):
        plan_pack(PackConfig(sources=twice, out=PackOut(url=str(tmp_path / "out"))))


def _members(url: str, end: str) -> list[bytes]:
    import tarfile

    found = []
    for path in sorted(Path(url).glob("*.tar")):
        with tarfile.open(path) as tar:
            found += [tar.extractfile(m).read() for m in tar if m.name.endswith(end)]  # type: ignore[union-attr]
    return found


def test_topcon_reads_raw_exports_beside_images_and_names_the_broken_ones(tmp_path: Path) -> None:
    write_image(tmp_path / "t" / "train" / "1.png")
    for part, name in (("val", "a.fda"), ("test", "b.fds")):
        (tmp_path / "t" / part).mkdir()
        write_topcon(tmp_path / "t" / part / name, "@IMG_SCAN_03", scan_stack(2).astype(np.uint16))
    (tmp_path / "t" / "test" / "cut.fds").write_bytes((tmp_path / "t" / "test" / "b.fds").read_bytes()[:-50])
    (tmp_path / "t" / "test" / "export.xml").write_text("<x/>")
    found = opened("topcon", tmp_path / "t")
    assert Counter(scan.split for scan in found.scans) == {"train": 1, "val": 2, "test": 3}
    assert {scan.source for scan in found.scans} == {"topcon"}
    assert found.notes[1:3] == ("3 files, 3 volumes", "1 files cannot be read")
    assert found.notes[3:] == ("passed over: 1 file .xml: not an image",)
