from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from retfound_dist.errors import ConfigError, DataError
from retfound_dist.io import storage
from shards.commands import pack_command
from shards.images.scan import Scan
from shards.pack import pack
from shards.sources.datasets.octid import list_octid
from shards.sources.folders.folder import list_folder
from tests.shards.pack_inputs import pack_config, scan_pixels, write_classes, write_image


def by_origin(root: Path) -> dict[str, Scan]:
    return {scan.origin: scan for scan in list_folder(str(root)).scans}


def write_listing(root: Path, text: str) -> None:
    (root / "manifest.csv").write_text(text)


def test_class_folders_give_labels_in_a_fixed_order(tmp_path: Path) -> None:
    scans = list_folder(str(write_classes(tmp_path / "set", {"NO": 2, "AMD": 1}))).scans
    assert [(s.origin, s.label, s.split, s.patient) for s in scans] == [
        ("AMD/amd_000.jpg", "AMD", None, None),
        ("NO/no_000.jpg", "NO", None, None),
        ("NO/no_001.jpg", "NO", None, None),
    ]
    assert {s.source for s in scans} == {"set"}


def test_every_image_extension_is_found_and_nothing_else(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JPEG", "c.png", "d.tif", "e.TIFF", "f.bmp"):
        write_image(tmp_path / "NO" / name)
    for name in ("notes.txt", ".hidden.jpg", "Thumbs.db"):
        (tmp_path / "NO" / name).write_bytes(b"x")
    write_image(tmp_path / ".cache" / "g.jpg")
    assert [s.origin[-6:] for s in list_folder(str(tmp_path)).scans] == [
        "/a.jpg",
        "b.JPEG",
        "/c.png",
        "/d.tif",
        "e.TIFF",
        "/f.bmp",
    ]


@pytest.mark.parametrize(("folder", "split"), [("train", "train"), ("valid", "val"), ("Test", "test")])
def test_octids_layout_gives_split_and_label(tmp_path: Path, folder: str, split: str) -> None:
    write_image(tmp_path / folder / "MH" / "1.jpg")
    (scan,) = list_folder(str(tmp_path)).scans
    assert (scan.split, scan.label) == (split, "MH")


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png")
    (scan,) = list_folder(str(tmp_path)).scans
    assert (scan.label, scan.split) == (None, None)


def test_a_listing_gives_label_patient_and_split(tmp_path: Path) -> None:
    write_classes(tmp_path, {"A": 2})
    write_listing(tmp_path, "file,label,patient,split\nA/a_000.jpg,B,p1,valid\nA/a_001.jpg,,p2,\n")
    scans = by_origin(tmp_path)
    first, second = scans["A/a_000.jpg"], scans["A/a_001.jpg"]
    assert (first.label, first.patient, first.split) == ("B", "p1", "val")
    assert (second.label, second.patient, second.split) == ("A", "p2", None)


def test_images_beside_a_listing_that_omits_them_are_kept_out_by_name(tmp_path: Path) -> None:
    write_classes(tmp_path, {"A": 2})
    write_listing(tmp_path, "file,label,patient\nA/a_000.jpg,A,p1\nA/gone.jpg,A,p1\n")
    scans = by_origin(tmp_path)
    with pytest.raises(DataError, match=r"not listed in the manifest beside it"):
        scans["A/a_001.jpg"].read()
    with pytest.raises(OSError):
        scans["A/gone.jpg"].read()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,label\na.jpg,A\n", "has no column 'file'"),
        ("file,label,patient,split\nA/a_000.jpg,A,1,dev\n", "line 2: split 'dev'"),
        ("file\nA/a_000.jpg\nA/./a_000.jpg\n", "line 3: A/a_000.jpg is listed twice"),
    ],
)
def test_a_wrong_listing_is_one_line_that_names_the_place(tmp_path: Path, text: str, said: str) -> None:
    write_classes(tmp_path, {"A": 1})
    write_listing(tmp_path, text)
    with pytest.raises(DataError, match=said) as caught:
        list_folder(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_listing_that_is_not_text_is_one_line(tmp_path: Path) -> None:
    write_classes(tmp_path, {"A": 1})
    (tmp_path / "manifest.csv").write_bytes(b"file,label\n\xff\xfe,A\n")
    with pytest.raises(DataError, match=r"manifest.csv line 2 is not UTF-8 \(byte 0xFF"):
        list_folder(str(tmp_path))


def test_links_that_lead_out_are_named_and_followed_on_request(tmp_path: Path) -> None:
    secret = write_image(tmp_path / "elsewhere" / "secret.jpg")
    root = write_classes(tmp_path / "set", {"A": 1})
    os.symlink(secret, root / "A" / "out.jpg")
    os.symlink(secret.parent, root / "B")
    listed = list_folder(str(root))
    assert [scan.origin for scan in listed.scans] == ["A/a_000.jpg"]
    (note,) = [note for note in listed.notes if "lead out" in note]
    assert "2 links that lead out of the folder, such as A/out.jpg -> " in note
    assert "source.follow_links=anywhere" in note
    trusted = list_folder(str(root), links="anywhere").scans
    assert [(scan.origin, scan.label) for scan in trusted] == [
        ("A/a_000.jpg", "A"),
        ("A/out.jpg", "A"),  # the first of two links to one file
    ]
    assert trusted[1].read() == secret.read_bytes()


def test_a_file_that_becomes_a_link_out_after_it_was_listed_is_not_read(tmp_path: Path) -> None:
    secret = write_image(tmp_path / "elsewhere" / "secret.jpg")
    root = write_classes(tmp_path / "set", {"A": 1})
    scan = by_origin(root)["A/a_000.jpg"]
    (root / "A" / "a_000.jpg").unlink()
    os.symlink(secret, root / "A" / "a_000.jpg")
    with pytest.raises(DataError, match="leads out of its folder"):
        scan.read()


@pytest.mark.parametrize("path", ["../elsewhere/secret.jpg", "/etc/hostname"])
def test_a_listing_cannot_reach_out_of_its_folder(tmp_path: Path, path: str) -> None:
    write_image(tmp_path / "elsewhere" / "secret.jpg")
    root = write_classes(tmp_path / "set", {"A": 1})
    write_listing(root, f"file,label,patient\n{path},A,p\n")
    with pytest.raises(DataError, match="leads out of its folder"):
        by_origin(root)[path].read()


def test_a_pipe_named_like_an_image_does_not_block(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "b.jpg")
    write_listing(tmp_path, "file,patient\na.jpg,1\nb.jpg,2\n")
    assert any("no regular file" in note and "b.jpg" in note for note in list_folder(str(tmp_path)).notes)
    with pytest.raises(DataError, match="not a regular file"):
        by_origin(tmp_path)["b.jpg"].read()


def test_an_empty_folder_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "NO").mkdir()
    (tmp_path / "NO" / "readme.txt").write_text("x")
    with pytest.raises(
        DataError,
        match=r"no images in .*give source.path a folder with jpg.*passed over: 1 file .txt, such as NO/readme.txt",
    ):
        list_folder(str(tmp_path))


def test_a_missing_folder_a_file_and_no_path_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        list_folder(str(tmp_path / "none"))
    with pytest.raises(DataError, match="is a file"):
        list_folder(str(write_image(tmp_path / "a.jpg")))
    with pytest.raises(ConfigError, match=r"source\.path is empty"):
        list_folder("")


def test_octdl_is_read_with_its_patients(test_data: Path) -> None:
    scans = list_folder(str(test_data / "octdl")).scans
    assert len(scans) == len({s.key for s in scans}) == 1527
    assert len({s.patient for s in scans}) == 614
    assert sorted({s.label or "" for s in scans}) == ["AMD", "DME", "ERM", "NO", "RAO", "RVO", "VID"]


def test_a_wrapped_set_gives_the_keys_labels_and_parts_of_the_set_itself(tmp_path: Path) -> None:
    for part in ("Training", "Testing"):
        write_classes(tmp_path / "up" / "Published" / part, {"CNV": 2, "NORMAL": 1})
    (tmp_path / "up" / "__MACOSX").mkdir()
    wrapped, plain = list_folder(str(tmp_path / "up")), list_folder(str(tmp_path / "up" / "Published"))
    told = [[(s.key, s.label, s.split, s.read()) for s in found.scans] for found in (wrapped, plain)]
    assert told[0] == told[1]
    assert "all images are in Published: the set is read there, and Published is not a label" in wrapped.notes


@pytest.mark.parametrize("inside", ["", "Set/"])
def test_a_listing_of_a_wrapped_set_is_read_from_above_and_from_within(tmp_path: Path, inside: str) -> None:
    write_classes(tmp_path / "Set", {"A": 1, "B": 1})
    above = "" if inside else "Set/"
    text = f"file,label,patient\n{above}A/a_000.jpg,,p1\n{above}B/b_000.jpg,X,p2\n"
    (tmp_path / inside / "manifest.csv").write_text(text)
    scans = list_folder(str(tmp_path)).scans
    assert [(s.key, s.label, s.patient) for s in scans] == [("A_a_000", "A", "p1"), ("B_b_000", "X", "p2")]
    assert all(scan.read() for scan in scans)


def test_a_hub_cache_packs_each_image_once_by_its_link(tmp_path: Path) -> None:
    for seed, name in enumerate("AABB"):
        blob = write_image(tmp_path / "hub" / "blobs" / f"{seed}.jpg", seed)
        link = tmp_path / "hub" / "snapshots" / "main" / name / f"{seed}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    manifest = pack(pack_config(tmp_path / "hub", tmp_path / "out"))
    assert manifest.sources["hub"]["labels"] == {"A": 2, "B": 2}
    assert manifest.skipped == ()
    with pytest.raises(DataError, match=r"4 links that lead out of the folder.*source.follow_links=anywhere"):
        pack(pack_config(tmp_path / "hub" / "snapshots", tmp_path / "no"))
    config = pack_config(tmp_path / "hub" / "snapshots", tmp_path / "out2")
    again = pack(replace(config, source=replace(config.source, follow_links="anywhere")))
    assert again.sources["snapshots"]["labels"] == {"A": 2, "B": 2}


def test_what_is_passed_over_stands_in_terminal_manifest_and_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_classes(tmp_path / "in", {"A": 2, "B": 2})
    (root / "C").mkdir()
    (root / "C" / "1.npy").write_bytes(b"x")
    (root / "E").mkdir()
    (tmp_path / "pack.toml").write_text(
        f"[source]\npath = '{root}'\n[out]\nurl = '{tmp_path}/out'\nworkers = 1\n"
    )
    assert pack_command(str(tmp_path / "pack.toml"), []) == 0
    out, card = capsys.readouterr().out, (tmp_path / "out" / "DATACARD.md").read_text()
    notes = storage.read_json(f"{tmp_path}/out/manifest.json")["sources"]["in"]["notes"]
    assert notes == [
        "folders without a readable image: C (skipped 1, such as 1.npy)",
        "empty class folders: E",
        "passed over: 1 file .npy, such as C/1.npy: not an image",
    ]
    for note in notes:
        assert f"note: {note}" in out
        assert f"- in: {note}" in card


def test_an_adapter_of_a_published_set_counts_what_it_passes_over_too(tmp_path: Path) -> None:
    for label in ("NORMAL", "MH"):
        write_image(tmp_path / label / f"{label}1.jpeg")
    (tmp_path / "MH" / "extra.npy").write_bytes(b"x")
    assert "passed over: 1 file .npy, such as MH/extra.npy: not an image" in list_octid(str(tmp_path)).notes


@pytest.mark.parametrize("end", ["webp", "jfif", "jpe", "gif", "jp2", "pgm", "ppm", "dib"])
def test_every_extension_is_packed_not_only_listed(tmp_path: Path, end: str) -> None:
    kinds = {"jfif": "JPEG", "jpe": "JPEG", "jp2": "JPEG2000", "pgm": "PPM", "dib": "BMP"}
    for label, seed in (("A", 0), ("B", 1)):
        (tmp_path / "in" / label).mkdir(parents=True)
        image = Image.fromarray(scan_pixels(seed))
        image.save(tmp_path / "in" / label / f"1.{end}", kinds.get(end, end.upper()))
    assert pack(pack_config(tmp_path / "in", tmp_path / "out")).samples == 2
