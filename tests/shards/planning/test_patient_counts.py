"""The card, the terminal and the manifest say what is known of patients, and claim no more."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from retfound_dist.config.schema import Source
from retfound_dist.errors import DataError
from retfound_dist.formats.shard_set import Manifest, read_manifest
from shards.append import append
from shards.commands import plan_lines, summary_lines
from shards.pack import pack, plan_pack
from tests.shards.device_files import scan_stack
from tests.shards.pack_inputs import pack_config, write_classes, write_image

SPLIT = {"fractions": [0.6, 0.2, 0.2]}
CLAIM = "No patient is in two parts"


def packed(root: Path, out: Path, **sections: dict[str, object]) -> tuple[Manifest, str, str]:
    manifest = pack(pack_config(root, out, **{"split": SPLIT, **sections}))
    return manifest, (out / "DATACARD.md").read_text(), "\n".join(summary_lines(manifest))


def with_list(root: Path, patients: str) -> Path:
    write_classes(root, {"A": 10, "B": 10})
    lines = [
        f"{label}/{label.lower()}_{n:03d}.jpg,{label},{patients.format(label=label, n=n // 2)}"
        for label in "AB"
        for n in range(10)
    ]
    (root / "manifest.csv").write_text("file,label,patient\n" + "\n".join(lines) + "\n")
    return root


def test_where_every_patient_is_known_the_card_says_that_none_is_in_two_parts(tmp_path: Path) -> None:
    manifest, card, said = packed(with_list(tmp_path / "set", "{label}{n}"), tmp_path / "out")
    assert f"{CLAIM}: every image's patient is known and was checked." in card
    assert "- set: patient known for all 20 images; split by patient (20 images)" in card
    assert "patient known for all 20 images; split by patient (20 images)" in said
    assert "manifest.csv: file <- 'file', label <- 'label', patient <- 'patient'" in said
    found = manifest.sources["set"]
    assert (found["patient_known"], found["split_by"], found["straddling"]) == (20, {"patient": 20}, 0)


def test_where_no_patient_is_known_the_card_calls_it_a_split_by_image(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "set", {"A": 10, "B": 10})
    _, card, said = packed(root, tmp_path / "out")
    assert CLAIM not in card
    assert "No patient is known: images of one patient can be in two parts, and scores on these parts" in card
    assert (
        "patient known for 0 of 20 images; split by image (20 images, their patients are not known)" in said
    )


def test_where_some_patients_are_known_both_numbers_are_said(tmp_path: Path) -> None:
    root = with_list(tmp_path / "set", "{label}{n}")
    text = (root / "manifest.csv").read_text().replace("A/a_000.jpg,A,A0", "A/a_000.jpg,A,unknown")
    (root / "manifest.csv").write_text(text)
    _, card, _ = packed(root, tmp_path / "out")
    assert CLAIM not in card
    assert "split by patient (19 images), by image (1 image, their patients are not known)" in card
    assert "The patient is not known for 1 of 20 images: images of one patient can be in two parts" in card


def test_slices_of_one_volume_stay_together_and_the_card_says_by_volume(tmp_path: Path) -> None:
    for v in range(12):
        for n in range(4):
            write_image(tmp_path / "set" / "AB"[v % 2] / f"V{v}" / f"slice_{n}.png", 100 * v + n)
    manifest, card, _ = packed(tmp_path / "set", tmp_path / "out")
    assert manifest.sources["set"]["split_by"] == {"volume": 48}
    assert manifest.sources["set"]["volumes"] == 12
    assert "No patient is known: each volume is in one part" in card
    parts = defaultdict(set)
    for scan in plan_pack(pack_config(tmp_path / "set", tmp_path / "out", split=SPLIT)).scans:
        parts[scan.volume].add(scan.split)
    assert {len(found) for found in parts.values()} == {1}
    assert set.union(*parts.values()) == {"train", "val", "test"}


def test_one_eye_cannot_be_divided_unless_it_is_asked_for(tmp_path: Path) -> None:
    for n in range(30):
        write_image(tmp_path / "eye" / f"slice_{n:03d}.tif", n)
    with pytest.raises(
        DataError, match=r"the 30 images are of 1 volume \(slices\).*split.unknown_patient=image"
    ):
        packed(tmp_path / "eye", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    split = {**SPLIT, "unknown_patient": "image"}
    manifest, card, _ = packed(tmp_path / "eye", tmp_path / "out", split=split)
    assert manifest.sources["eye"]["split_by"] == {"image": 30}
    assert CLAIM not in card
    whole, card, _ = packed(tmp_path / "eye", tmp_path / "whole", split={"fractions": [0, 0, 0]})
    assert whole.sources["eye"]["volumes"] == 1
    assert "There are no parts. The patient is known for 0 of 30 images." in card


def test_parts_that_the_source_brings_are_called_its_own(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("test", 2)):
        write_classes(tmp_path / "set" / part, {"A": count, "B": count})
    for number, path in enumerate(sorted((tmp_path / "set" / "test").glob("*/*.jpg"))):
        write_image(path, 9000 + number)
    _, card, said = packed(tmp_path / "set", tmp_path / "out", split={"fractions": [0, 0, 0]})
    assert "split by the source (12 images)" in said
    assert "whether a patient is in two of the source's parts could not be checked" in card


def test_a_volume_in_two_parts_of_a_list_is_an_error(tmp_path: Path) -> None:
    write_classes(tmp_path / "set", {"A": 2})
    (tmp_path / "set" / "manifest.csv").write_text(
        "file,volume,split\nA/a_000.jpg,v,train\nA/a_001.jpg,v,test\n"
    )
    with pytest.raises(DataError, match="volume v of source set is in train and in test"):
        packed(tmp_path / "set", tmp_path / "out")


def test_a_set_with_an_older_source_claims_nothing_of_it(tmp_path: Path) -> None:
    packed(with_list(tmp_path / "set", "{label}{n}"), tmp_path / "out")
    tree = json.loads((tmp_path / "out" / "manifest.json").read_text())
    for key in ("patient_known", "split_by", "straddling"):
        del tree["sources"]["set"][key]
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(tree))
    more = with_list(tmp_path / "more", "{label}{n}")
    for number, path in enumerate(sorted(more.glob("*/*.jpg"))):
        write_image(path, 5000 + number)
    append(pack_config(more, tmp_path / "out", split=SPLIT))
    card = (tmp_path / "out" / "DATACARD.md").read_text()
    assert CLAIM not in card
    assert "An older version packed some sources: whether a patient is in two parts is not known." in card
    assert summary_lines(read_manifest(str(tmp_path / "out")))


def test_labels_that_are_no_classes_are_a_warning_of_pack(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "set", {"A": 20})
    lines = [f"A/a_{n:03d}.jpg,{40 + n}" for n in range(20)]
    (root / "manifest.csv").write_text("file,label\n" + "\n".join(lines) + "\n")
    config = pack_config(root, tmp_path / "out")
    said = "\n".join(plan_lines(plan_pack(config), config))
    assert "note: warning, labels: the labels are 20 different numbers from 40 to 59" in said
    assert pack(config).samples == 20


def test_volumes_of_a_file_that_names_no_patient_stay_together_and_no_patient_is_counted(
    tmp_path: Path,
) -> None:
    from scipy.io import savemat

    for number in range(6):
        where = tmp_path / "in" / f"{number}.mat"
        where.parent.mkdir(exist_ok=True)
        savemat(where, {"images": scan_stack(4, first=100 + 10 * number).transpose(1, 2, 0)})
    config = replace(
        pack_config(tmp_path / "in", tmp_path / "out", split=SPLIT),
        source=Source(kind="device", path=str(tmp_path / "in")),
    )
    found = pack(config).sources["device"]
    assert (found["patients"], found["patient_known"], found["volumes"]) == (0, 0, 6)
    assert found["split_by"] == {"volume": 24}
    parts = defaultdict(set)
    for scan in plan_pack(config).scans:
        parts[scan.volume].add(scan.split)
    assert {len(held) for held in parts.values()} == {1}


def test_files_of_small_folders_are_kept_together_where_there_are_several(tmp_path: Path) -> None:
    from shards.sources.devices.device import patient_folders

    few = [f"P{p}/{eye}.img" for p in range(4) for eye in ("OD", "OS")]
    assert patient_folders(few) == {}
    groups = patient_folders([*few, "P5/OD.img", "loose.img", *(f"large/{n}.img" for n in range(17))])
    assert set(groups) == {"P0", "P1", "P2", "P3", "P5"}
    assert not any("P" in token for token in groups.values())


def test_slices_whose_row_names_no_patient_go_with_their_volume(tmp_path: Path) -> None:
    lines = []
    for v in range(6):
        for n in range(4):
            write_image(tmp_path / "set" / "AB"[v % 2] / f"V{v}" / f"slice_{n}.png", 100 * v + n)
            lines.append(f"{'AB'[v % 2]}/V{v}/slice_{n}.png,{f'p{v}' if n == 0 else ''}")
    (tmp_path / "set" / "manifest.csv").write_text("file,patient\n" + "\n".join(lines) + "\n")
    manifest, card, _ = packed(tmp_path / "set", tmp_path / "out")
    assert manifest.sources["set"]["patients"] == 6
    assert "the patient of 18 images is taken from other slices of their volume" in card
    assert f"{CLAIM}: every image's patient is known" in card
