from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.config.schema import PackConfig
from retfound_dist.errors import DataError, ManifestError
from shards.append import append
from shards.pack import pack
from shards.verify import verify
from tests.shards.pack_inputs import file_bytes, pack_config, write_classes, write_image


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return Path(pack(pack_config(write_classes(tmp_path / "one", {"A": 20, "B": 6}), tmp_path / "out")).url)


@pytest.fixture
def more(tmp_path: Path, first: Path) -> PackConfig:
    """Another source: eight new pictures, two that the set has already."""
    for number in range(8):
        write_image(tmp_path / "two" / "C" / f"{number}.jpg", 5000 + number)
    for number in range(2):
        shutil.copy(tmp_path / "one" / "A" / f"a_00{number}.jpg", tmp_path / "two" / "C")
    return pack_config(tmp_path / "two", first)


def test_an_appended_source_leaves_the_old_shards_as_they_are(first: Path, more: PackConfig) -> None:
    before = {name: data for name, data in file_bytes(first).items() if name.endswith((".tar", ".idx"))}
    manifest = append(more)
    after = file_bytes(first)
    assert all(after[name] == data for name, data in before.items())
    assert (manifest.samples, manifest.classes) == (34, ("A", "B", "C"))
    assert {name: found["samples"] for name, found in manifest.sources.items()} == {"one": 26, "two": 8}
    assert [skip["reason"][:23] for skip in manifest.skipped] == ["is the same picture as "] * 2
    assert verify(str(first), 1) == []
    assert "packing.json" not in after
    assert "# Data card: 34 B-scans" in after["DATACARD.md"].decode()


def test_appending_again_changes_nothing(first: Path, more: PackConfig) -> None:
    append(more)
    before = file_bytes(first)
    append(more)
    assert file_bytes(first) == before


def test_an_append_that_was_broken_off_leaves_the_old_set_readable_and_goes_on(
    first: Path, more: PackConfig, tmp_path: Path
) -> None:
    shutil.copytree(first, tmp_path / "undisturbed")
    append(pack_config(tmp_path / "two", tmp_path / "undisturbed"))

    def stop_after(done: int, total: int) -> None:
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        append(more, stop_after)
    assert json.loads((first / "manifest.json").read_text())["samples"] == 26
    append(more)
    assert file_bytes(first) == file_bytes(tmp_path / "undisturbed")


def test_a_source_of_the_same_name_is_refused(first: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "one" / "B" / "new.jpg", 777)
    before = file_bytes(first)
    with pytest.raises(DataError, match="already has a source one"):
        append(pack_config(tmp_path / "one", first))
    assert file_bytes(first) == before


def test_other_image_settings_are_refused(first: Path, more: PackConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="append with the same"):
        append(pack_config(tmp_path / "two", first, image={"quality": 50}))


def test_there_must_be_a_set_to_append_to(tmp_path: Path) -> None:
    write_image(tmp_path / "two" / "1.jpg")
    with pytest.raises(ManifestError, match=r"there is nothing at|not a shard set"):
        append(pack_config(tmp_path / "two", tmp_path / "none"))


def test_append_is_an_option_of_pack(
    first: Path, more: PackConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "source.kind=folder",
        f"source.path={tmp_path}/two",
        f"out.url={first}",
        "split.fractions=[0,0,0]",
    ]
    assert main(["pack", "configs/demo/pack.toml", *words, "--append"]) == 0
    assert capsys.readouterr().out.startswith("packed 34 images")
