"""Which files are found below a folder, which links are followed, what is counted instead."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from retfound_dist.errors import DataError
from retfound_dist.files.folder_walk import FolderFiles
from retfound_dist.files.image_files import IMAGE_ENDS, find_files, read_file


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def link(path: Path, target: Path | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def said(found: FolderFiles) -> str:
    return "\n".join(found.passed.lines("data.follow_links=anywhere"))


@pytest.mark.parametrize("end", IMAGE_ENDS)
def test_every_image_extension_is_found_in_any_case(tmp_path: Path, end: str) -> None:
    put(tmp_path / f"a{end}"), put(tmp_path / f"b{end.upper()}")
    assert find_files(str(tmp_path)).paths == [f"a{end}", f"b{end.upper()}"]


def test_what_is_passed_over_is_counted_by_kind_with_an_example(tmp_path: Path) -> None:
    for name in ("b.npy", "a.npy", "x.NPY", "deep/c.npy"):
        put(tmp_path / name)
    put(tmp_path / "IM0001", bytes(128) + b"DICM" + bytes(50))
    put(tmp_path / "1.2.840.113619.2.55", bytes(128) + b"DICM")
    put(tmp_path / "e.IMA"), put(tmp_path / "eye.vol"), put(tmp_path / "c.heic"), put(tmp_path / "README")
    put(tmp_path / "data.zip"), put(tmp_path / "packed", b"PK\x03\x04rest")
    (
        put(tmp_path / ".DS_Store"),
        put(tmp_path / "._a.jpg"),
        put(tmp_path / "Thumbs.db"),
        put(tmp_path / "__MACOSX/a.jpg"),
    )
    found = find_files(str(tmp_path))
    assert found.paths == []
    lines = found.passed.lines()
    assert lines[0] == "passed over: 4 files .npy, such as a.npy: not an image"
    assert "passed over: 3 files that look like DICOM, such as 1.2.840.113619.2.55: " in lines[1]
    assert "source.kind=device" in lines[1]
    assert "passed over: 2 archives, such as data.zip: unpack them" in lines
    assert any("1 file of the kinds that OCT devices write, such as eye.vol" in line for line in lines)
    assert any(
        "1 file in a picture format that is not read, such as c.heic: save as PNG" in line for line in lines
    )
    assert any("1 file without an extension, such as README" in line for line in lines)
    assert lines[-1].startswith("passed over: 4 hidden or of the operating system")
    assert len(found.passed) == 12


def test_a_name_that_the_caller_reads_otherwise_is_not_counted_in_the_root_alone(tmp_path: Path) -> None:
    put(tmp_path / "manifest.csv"), put(tmp_path / "sub/manifest.csv"), put(tmp_path / "a.jpg")
    assert said(find_files(str(tmp_path), used=("manifest.csv",))).startswith(
        "passed over: 1 table, such as sub/manifest.csv: not read"
    )


def test_links_inside_the_folder_are_followed_to_files_and_folders(tmp_path: Path) -> None:
    put(tmp_path / "store/one/0.jpg", b"zero"), put(tmp_path / "pool/1.jpg", b"one")
    link(tmp_path / "A/1.jpg", "../pool/1.jpg"), link(tmp_path / "B", "store/one")
    found = find_files(str(tmp_path))
    assert found.paths == ["A/1.jpg", "B/0.jpg"]
    assert [read_file(found.root, path) for path in found.paths] == [b"one", b"zero"]
    assert list(found.sizes) == [3, 4]
    assert (
        "2 files that a link inside the folder stands for, such as pool/1.jpg: read once, by the link"
        in said(found)
    )


def test_an_image_that_several_links_lead_to_is_listed_once_and_the_others_named(tmp_path: Path) -> None:
    put(tmp_path / "blobs/x.jpg")
    link(tmp_path / "A/1.jpg", "../blobs/x.jpg"), link(tmp_path / "B/1.jpg", "../blobs/x.jpg")
    found = find_files(str(tmp_path))
    assert found.paths == ["A/1.jpg"]
    assert "1 link to what another link leads to already, such as B/1.jpg" in said(found)


def test_links_out_of_the_folder_are_named_never_opened_and_followed_only_on_request(tmp_path: Path) -> None:
    put(tmp_path / "blobs/0.jpg", b"blob"), put(tmp_path / "far/1.jpg")
    link(tmp_path / "data/A/0.jpg", "../../blobs/0.jpg"), link(tmp_path / "data/B", "../far")
    link(tmp_path / "data/A/passwd.jpg", "/etc/passwd")
    found = find_files(str(tmp_path / "data"))
    assert found.paths == []
    assert "3 links that lead out of the folder, such as A/0.jpg -> ../../blobs/0.jpg" in said(found)
    assert "data.follow_links=anywhere follows them if you trust this folder" in said(found)
    with pytest.raises(DataError, match="leads out of its folder"):
        read_file(found.root, "A/passwd.jpg")
    trusted = find_files(str(tmp_path / "data"), links="anywhere")
    assert trusted.paths == ["A/0.jpg", "A/passwd.jpg", "B/1.jpg"]
    assert read_file(trusted.root, "A/0.jpg", "anywhere") == b"blob"


def test_a_cycle_a_dangling_link_and_a_ring_end_and_are_named(tmp_path: Path) -> None:
    put(tmp_path / "A/0.jpg")
    (
        link(tmp_path / "A/up", ".."),
        link(tmp_path / "A/self", "../A"),
        link(tmp_path / "A/gone.jpg", "nowhere.jpg"),
    )
    link(tmp_path / "B/x", "../C"), link(tmp_path / "C/y", "../B"), link(tmp_path / "ring.jpg", "ring.jpg")
    found = find_files(str(tmp_path))
    assert found.paths == ["A/0.jpg"]
    lines = said(found)
    assert "links to a folder that holds the link, such as A/self -> ../A" in lines
    assert "2 links to what is not there, such as A/gone.jpg -> nowhere.jpg: restore the target" in lines


def test_many_ways_through_links_are_walked_once_each_folder(tmp_path: Path) -> None:
    for level in range(30):  # two links to the next level in each: 2 ** 30 ways
        put(tmp_path / f"d{level}" / "x.jpg")
        (
            link(tmp_path / f"d{level}" / "a", f"../d{level + 1}"),
            link(tmp_path / f"d{level}" / "b", f"../d{level + 1}"),
        )
    put(tmp_path / "d30" / "x.jpg")
    found = find_files(str(tmp_path))
    assert len(found.paths) == 31
    assert len(found.folders) < 200


@pytest.mark.parametrize("links", ["inside", "anywhere"])
def test_pipes_and_devices_are_named_and_never_waited_for(tmp_path: Path, links: str) -> None:
    os.mkfifo(tmp_path / "pipe.jpg"), os.mkfifo(tmp_path / "noext")
    link(tmp_path / "null.jpg", "/dev/null"), link(tmp_path / "linked.jpg", "pipe.jpg")
    found = find_files(str(tmp_path), links=links)  # type: ignore[arg-type]
    assert found.paths == []
    assert "named like an image but no regular file (a pipe, a device)" in said(found)
    with pytest.raises(DataError, match="not a regular file"):
        read_file(str(tmp_path), "pipe.jpg")


def test_a_file_swapped_for_a_link_after_it_was_listed_is_not_read(tmp_path: Path) -> None:
    secret = put(tmp_path / "secret.jpg")
    put(tmp_path / "data/a.jpg")
    (tmp_path / "data/a.jpg").unlink()
    link(tmp_path / "data/a.jpg", secret)
    with pytest.raises(DataError, match="leads out of its folder"):
        read_file(str(tmp_path / "data"), "a.jpg")


def test_the_list_is_the_same_in_whatever_order_a_disk_gives_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcdef":
        put(tmp_path / name / "1.jpg"), put(tmp_path / name / "x.npy")
        link(tmp_path / f"l{name}", name), link(tmp_path / f"m{name}", name)
    expected, real = find_files(str(tmp_path)), os.scandir

    class Shuffled:
        def __init__(self, path: str) -> None:
            with real(path) as entries:
                self.entries = random.Random(path).sample(found := list(entries), len(found))

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(os, "scandir", Shuffled)
    again = find_files(str(tmp_path))
    assert expected.paths == again.paths == [f"l{name}/1.jpg" for name in "abcdef"]
    assert expected.passed.lines() == again.passed.lines()


def test_a_folder_without_rights_is_an_error_and_no_loss(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg"), (tmp_path / "closed").mkdir()
    (tmp_path / "closed").chmod(0)
    try:
        if os.access(tmp_path / "closed", os.R_OK):
            pytest.skip("this user may read every folder")
        with pytest.raises(DataError, match=r"cannot list .*closed.*check its rights"):
            find_files(str(tmp_path))
    finally:
        (tmp_path / "closed").chmod(0o755)


def test_names_that_are_no_text_are_listed_and_printed(tmp_path: Path) -> None:
    for name in (b"\xff\xfe.jpg", b"bad\n\xff.npy"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as stream:
            stream.write(b"x")
    found = find_files(str(tmp_path))
    assert read_file(found.root, found.paths[0]) == b"x"
    assert all(line.isprintable() for line in found.passed.lines())
