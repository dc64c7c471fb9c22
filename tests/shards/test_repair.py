from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.config.schema import PackConfig
from retfound_dist.errors import DataError
from shards.append import append, plan_of
from shards.pack import pack, plan_pack
from shards.repair import repair, shard_contents
from shards.verify import inspect_set
from tests.shards.pack_inputs import file_bytes, pack_config, write_classes, write_image


@pytest.fixture
def config(tmp_path: Path) -> PackConfig:
    images = write_classes(tmp_path / "images", {"A": 30, "B": 12})
    (images / "A" / "broken.jpg").write_text("hi")
    shutil.copy(images / "A" / "a_003.jpg", images / "B" / "again.jpg")
    return pack_config(images, tmp_path / "out", split={"fractions": [0.5, 0.3, 0.2]})


def spoil(out: Path) -> None:
    """One shard lost, one cut, one index lost, one byte turned over in another."""
    tars = sorted(out.glob("*.tar"))
    assert len(tars) > 4
    tars[0].unlink()
    tars[1].write_bytes(tars[1].read_bytes()[:-700])
    tars[2].with_suffix(".idx").unlink()
    data = bytearray(tars[-1].read_bytes())
    data[800] ^= 1
    tars[-1].write_bytes(data)


def test_bad_shards_are_rebuilt_to_the_same_bytes(config: PackConfig) -> None:
    out = Path(pack(config).url)
    before = file_bytes(out)
    spoil(out)
    report = inspect_set(str(out))
    assert len(report.bad_shards) == 4
    repair(config, plan_pack(config), report.bad_shards)
    assert file_bytes(out) == before
    assert inspect_set(str(out)).faults == ()


def test_sound_shards_are_not_touched_by_a_repair(config: PackConfig) -> None:
    out = Path(pack(config).url)
    spoil(out)
    sound = sorted(out.glob("*.tar"))[2:-1]
    times = [path.stat().st_mtime_ns for path in sound]
    repair(config, plan_pack(config), inspect_set(str(out)).bad_shards)
    assert [path.stat().st_mtime_ns for path in sound][1:] == times[1:]


def test_every_scan_of_the_plan_is_in_one_piece(config: PackConfig) -> None:
    manifest, plan = pack(config), plan_pack(config)
    found = [scan.key for piece in shard_contents(manifest, plan, manifest.shards) for scan in piece.scans]
    left_out = [
        skip.key for piece in shard_contents(manifest, plan, manifest.shards) for skip in piece.skipped
    ]
    assert sorted(found + left_out) == sorted(scan.key for scan in plan.scans)
    assert len(left_out) == 2


def test_a_source_that_has_changed_repairs_nothing(config: PackConfig, tmp_path: Path) -> None:
    out = Path(pack(config).url)
    spoil(out)
    left = file_bytes(out)
    write_image(tmp_path / "images" / "A" / "new.jpg", 99)
    with pytest.raises(DataError, match="the source holds other images now"):
        repair(config, plan_pack(config), inspect_set(str(out)).bad_shards)
    assert file_bytes(out) == left


def test_an_image_of_the_same_size_with_other_pixels_is_found_out(config: PackConfig, tmp_path: Path) -> None:
    out = Path(pack(config).url)
    for path in (tmp_path / "images" / "A").glob("a_*.jpg"):
        data = bytearray(path.read_bytes())
        data[-30] ^= 1
        path.write_bytes(data)
    bad = [path.name for path in out.glob("*.tar")]
    with pytest.raises(DataError, match=r"differs from the manifest|cannot be rebuilt"):
        repair(config, plan_pack(config), bad)


def test_shards_that_were_appended_are_rebuilt_with_their_own_config(
    config: PackConfig, tmp_path: Path
) -> None:
    out = Path(pack(config).url)
    for number in range(9):
        write_image(tmp_path / "two" / f"{number}.jpg", 9000 + number)
    more = pack_config(tmp_path / "two", out)
    append(more)
    before = file_bytes(out)
    tars = sorted(out.glob("*.tar"))
    for tar in (tars[0], tars[-1]):
        tar.unlink()
    assert repair(more, plan_of(more), inspect_set(str(out)).bad_shards) == [tars[-1].name]
    assert repair(config, plan_of(config), inspect_set(str(out)).bad_shards) == [tars[0].name]
    assert file_bytes(out) == before


def test_verify_repairs_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_classes(tmp_path / "images", {"A": 8})
    overrides = ["source.kind=folder", f"source.path={images}"]
    out = tmp_path / "out"
    preset = "configs/demo/pack.toml"
    assert main(["pack", preset, *overrides, f"out.url={out}"]) == 0
    next(out.glob("*.tar")).unlink()
    assert main(["verify", str(out)]) == 1
    assert "--repair CONFIG.toml rebuilds bad shards" in capsys.readouterr().out
    assert main(["verify", str(out), "--repair", preset, *overrides]) == 0
    assert "no faults" in capsys.readouterr().out
