from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.errors import ConfigError
from shards.commands import pack_command
from tests.shards.pack_inputs import write_classes, write_image

PRESET = "configs/demo/pack.toml"


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    images = write_classes(tmp_path / "images", {"A": 6, "B": 4})
    (images / "A" / "bad.jpg").write_text("hi")
    return ["source.kind=folder", f"source.path={images}", f"out.url={tmp_path}/out"]


def test_packing_ends_with_a_short_summary(overrides: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert pack_command(PRESET, overrides) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("packed 10 images in 3 shards")
    assert lines[1] == "  images: 10 images"
    assert lines[2].strip() == (
        "patient known for 0 of 10 images; split by image (10 images, their patients are not known)"
    )
    assert [line.split(":")[0].strip() for line in lines[3:6]] == ["train", "val", "test"]
    assert any(line.startswith("  A/bad.jpg is not a JPEG, PNG, TIFF, BMP, WebP") for line in lines)
    assert lines[-1].startswith("shard set: ")
    assert len(lines) <= 10


def test_progress_is_plain_lines_where_there_is_no_terminal(
    overrides: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retfound_dist.runtime.progress.PLAIN_FIRST_S", 0.0)
    monkeypatch.setattr("retfound_dist.runtime.progress.PLAIN_EVERY_S", 0.0)
    pack_command(PRESET, overrides)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[-1].startswith("packing: 11 of 11 images, ")
    assert "\x1b" not in "".join(lines)


def test_packing_again_says_that_it_is_done(overrides: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pack_command(PRESET, overrides, quiet=True)
    assert capsys.readouterr().out == ""
    assert pack_command(PRESET, overrides) == 0
    said = capsys.readouterr().out
    assert said.startswith("already packed: 10 images in 3 shards")
    assert "names and sizes of the files were compared, not their content; --force packs them again" in said


def test_a_dry_run_lists_what_it_finds_and_writes_nothing(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pack_command(PRESET, overrides, dry_run=True) == 0
    assert "would pack 11 images" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_an_unknown_key_names_its_nearest_neighbour(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"source.pth.*source.path"):
        pack_command(PRESET, [*overrides, "source.pth=x"])


def test_a_file_that_cannot_be_read_is_named_before_all_that_are_only_copies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        write_image(tmp_path / "in" / f"{number:02d}.png", 3)
    (tmp_path / "in" / "zz.png").write_bytes(b"")
    config = tmp_path / "c.toml"
    config.write_text("[out]\nbad_sample_budget = 1\n")
    pack_command(str(config), [f"source.path={tmp_path}/in", f"out.url={tmp_path}/out"])
    said = capsys.readouterr().out.splitlines()
    at = said.index("left out 12 images, all listed in the manifest:")
    assert said[at + 1] == "  zz.png is empty (0 bytes)"
