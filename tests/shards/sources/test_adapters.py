"""Every kind of source is opened by its adapter, alone and together with others."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.config.schema import PackConfig, PackOut, Source
from retfound_dist.errors import ConfigError, DataError
from shards.commands import pack_command
from shards.pack import pack, plan_pack
from tests.shards.device_files import reflectance, scan_stack, write_vol
from tests.shards.pack_inputs import write_image
from tests.shards.published_layouts import list_source, sources_config, write_duke, write_goals, write_octa500


@pytest.mark.parametrize(
    "kind", ["octid", "octdl", "kermany", "octa500", "duke_dme", "goals", "topcon", "device"]
)
def test_a_folder_of_another_kind_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    (tmp_path / "wrong").mkdir()
    if kind != "topcon":
        write_image(tmp_path / "wrong" / "holiday.png")
    with pytest.raises(DataError, match=r"source\.path|device files") as caught:
        list_source(kind, tmp_path / "wrong")
    assert "\n" not in str(caught.value)


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
    manifest = pack(sources_config(tmp_path, sources, root=str(corpus(tmp_path / "data"))))
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


def test_device_files_are_counted_while_they_are_listed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        write_vol(tmp_path / f"in/{number}.vol", reflectance(scan_stack(1)))
    counts: list[tuple[int, int]] = []
    source = Source(kind="device", path=str(tmp_path / "in"))
    config = PackConfig(source=source, out=PackOut(url=str(tmp_path / "out")))
    plan_pack(config, on_progress=lambda *count: counts.append(count))
    assert counts == [(0, 3), (1, 3), (2, 3)]
