"""Which folders are entered, which links are followed, and what is counted instead of listed."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from retfound_dist.errors import DataError
from retfound_dist.files.image_files import find_files
from tests.files.folder_trees import link, put, sentences


def test_a_name_that_the_caller_reads_otherwise_is_not_counted_in_the_root_alone(tmp_path: Path) -> None:
    put(tmp_path / "manifest.csv"), put(tmp_path / "sub/manifest.csv"), put(tmp_path / "a.jpg")
    assert sentences(find_files(str(tmp_path), used=("manifest.csv",))).startswith(
        "passed over: 1 table, such as sub/manifest.csv: not read"
    )


def test_links_inside_the_folder_are_followed_to_files_and_folders(tmp_path: Path) -> None:
    put(tmp_path / "store/one/0.jpg", b"zero"), put(tmp_path / "pool/1.jpg", b"one")
    link(tmp_path / "A/1.jpg", "../pool/1.jpg"), link(tmp_path / "B", "store/one")
    files = find_files(str(tmp_path))
    assert files.paths == ["A/1.jpg", "B/0.jpg"]
    assert list(files.sizes) == [3, 4]
    assert (
        "2 files that a link inside the folder stands for, such as pool/1.jpg: read once, by the link"
        in sentences(files)
    )


def test_an_image_that_several_links_lead_to_is_listed_once_and_the_others_named(tmp_path: Path) -> None:
    put(tmp_path / "blobs/x.jpg")
    link(tmp_path / "A/1.jpg", "../blobs/x.jpg"), link(tmp_path / "B/1.jpg", "../blobs/x.jpg")
    files = find_files(str(tmp_path))
    assert files.paths == ["A/1.jpg"]
    assert "1 link to the target of another link, such as B/1.jpg" in sentences(files)


def test_links_out_of_the_folder_are_named_never_opened_and_followed_only_on_request(tmp_path: Path) -> None:
    put(tmp_path / "blobs/0.jpg", b"blob"), put(tmp_path / "far/1.jpg")
    link(tmp_path / "data/A/0.jpg", "../../blobs/0.jpg"), link(tmp_path / "data/B", "../far")
    link(tmp_path / "data/A/passwd.jpg", "/etc/passwd")
    files = find_files(str(tmp_path / "data"))
    assert files.paths == []
    assert "3 links that lead out of the folder, such as A/0.jpg -> ../../blobs/0.jpg" in sentences(files)
    assert "data.follow_links=anywhere follows them if you trust this folder" in sentences(files)
    trusted = find_files(str(tmp_path / "data"), links="anywhere")
    assert trusted.paths == ["A/0.jpg", "A/passwd.jpg", "B/1.jpg"]


def test_a_cycle_a_dangling_link_and_a_ring_end_and_are_named(tmp_path: Path) -> None:
    put(tmp_path / "A/0.jpg")
    (
        link(tmp_path / "A/up", ".."),
        link(tmp_path / "A/self", "../A"),
        link(tmp_path / "A/gone.jpg", "nowhere.jpg"),
    )
    link(tmp_path / "B/x", "../C"), link(tmp_path / "C/y", "../B"), link(tmp_path / "ring.jpg", "ring.jpg")
    files = find_files(str(tmp_path))
    assert files.paths == ["A/0.jpg"]
    lines = sentences(files)
    assert "links to a folder that holds the link, such as A/self -> ../A" in lines
    assert "2 links to a missing target, such as A/gone.jpg -> nowhere.jpg: restore the target" in lines


def test_many_ways_through_links_are_walked_once_each_folder(tmp_path: Path) -> None:
    for level in range(30):  # two links to the next level in each: 2 ** 30 ways
        put(tmp_path / f"d{level}" / "x.jpg")
        (
            link(tmp_path / f"d{level}" / "a", f"../d{level + 1}"),
            link(tmp_path / f"d{level}" / "b", f"../d{level + 1}"),
        )
    put(tmp_path / "d30" / "x.jpg")
    files = find_files(str(tmp_path))
    assert len(files.paths) == 31
    assert len(files.folders) < 200


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
                self.entries = random.Random(path).sample(listed := list(entries), len(listed))

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(os, "scandir", Shuffled)
    again = find_files(str(tmp_path))
    assert expected.paths == again.paths == [f"l{name}/1.jpg" for name in "abcdef"]
    assert expected.skipped.lines() == again.skipped.lines()


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


@pytest.mark.parametrize("links", ["inside", "anywhere"])
def test_pipes_and_devices_are_named_and_never_waited_for(tmp_path: Path, links: str) -> None:
    os.mkfifo(tmp_path / "pipe.jpg"), os.mkfifo(tmp_path / "noext")
    link(tmp_path / "null.jpg", "/dev/null"), link(tmp_path / "linked.jpg", "pipe.jpg")
    files = find_files(str(tmp_path), links=links)  # type: ignore[arg-type]
    assert files.paths == []
    assert "named like an image but no regular file (a pipe, a device)" in sentences(files)


def test_every_folder_that_was_entered_has_a_tally(tmp_path: Path) -> None:
    (
        put(tmp_path / "A/1.jpg"),
        put(tmp_path / "A/2.jpg"),
        put(tmp_path / "A/x.npy"),
        put(tmp_path / "A/B/3.jpg"),
    )
    folders = find_files(str(tmp_path)).folders
    assert set(folders) == {"", "A", "A/B"}
    tally = folders["A"]
    assert (tally.images, tally.skipped, tally.example, tally.folders) == (2, 1, "A/x.npy", 1)
