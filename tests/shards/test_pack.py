from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retfound_dist.cli import main
from retfound_dist.config.loading import load
from retfound_dist.config.schema import PackConfig
from retfound_dist.errors import ConfigError, DataError
from retfound_dist.formats.content_identity import set_fingerprint
from retfound_dist.io import storage
from shards.pack import pack
from shards.verify import verify
from tests.shards.pack_inputs import file_bytes, pack_config, scan_pixels, write_classes, write_image
from tests.shards.packed_samples import samples_of

COUNTS = {"NO": 12, "AMD": 8}
PARTED = {"fractions": [0.5, 0.25, 0.25]}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "images", COUNTS)


def test_plain_webdataset_reads_every_image_and_its_fields(images: Path, tmp_path: Path) -> None:
    manifest = pack(pack_config(images, tmp_path / "out", split=PARTED))
    found = samples_of(manifest)
    assert len({s["__key__"] for s in found}) == len(found) == manifest.samples == 20
    for sample in found:
        fields = json.loads(sample["json"])
        assert fields["label"] == sample["__key__"].split("_")[0]
        assert fields["source"] == "images"
        assert (fields["height"], fields["width"]) == (48, 64)
        assert np.asarray(Image.open(io.BytesIO(sample["jpg"]))).shape == (48, 64)


def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path) -> None:
    images = write_classes(tmp_path / "images", {"A": 50, "B": 40}, "png")
    write_image(images / "A" / "bad.png").write_bytes(b"x")
    results = []
    for workers in (1, 3):
        out = tmp_path / f"out{workers}"
        pack(pack_config(images, out, out={"workers": workers}, split=PARTED))
        results.append(file_bytes(out))
    assert results[0] == results[1]


def test_shuffling_follows_the_seed(images: Path, tmp_path: Path) -> None:
    keys = []
    for number, seed in enumerate((0, 0, 1)):
        manifest = pack(pack_config(images, tmp_path / f"o{number}", out={"seed": seed}))
        keys.append([sample["__key__"] for sample in samples_of(manifest)])
    assert keys[0] == keys[1] != keys[2]
    assert keys[0] != sorted(keys[0])


def test_keys_have_no_dots_though_file_names_do(tmp_path: Path) -> None:
    for name in ("scan.1.jpg", "scan_1.jpg", "scan.1.png"):
        write_image(tmp_path / "images" / "A.B" / name, seed=sum(map(ord, name)))
    found = samples_of(pack(pack_config(tmp_path / "images", tmp_path / "out")))
    assert len(found) == 3
    assert all("." not in s["__key__"] and "jpg" in s for s in found)


def test_bad_images_are_named_counted_and_kept_out(images: Path, tmp_path: Path) -> None:
    good = write_image(images / "NO" / "cut.jpg").read_bytes()
    (images / "NO" / "cut.jpg").write_bytes(good[: len(good) // 2])
    (images / "NO" / "text.jpg").write_text("hi")
    Image.new("L", (1, 1), 9).save(images / "AMD" / "dot.png")
    Image.new("L", (64, 64), 9).save(images / "AMD" / "black.png")
    manifest = pack(pack_config(images, tmp_path / "out", out={"bad_sample_budget": 4}))
    assert manifest.samples == 20
    assert manifest.sources["images"]["skipped"] == 4
    reasons = {skip["origin"]: skip["reason"] for skip in manifest.skipped}
    assert set(reasons) == {"NO/cut.jpg", "NO/text.jpg", "AMD/dot.png", "AMD/black.png"}
    assert "Premature end" in reasons["NO/cut.jpg"]
    assert "is not a JPEG" in reasons["NO/text.jpg"]
    assert "is 1x1 pixels" in reasons["AMD/dot.png"]
    assert "is blank" in reasons["AMD/black.png"]
    assert not {skip["key"] for skip in manifest.skipped} & {s["__key__"] for s in samples_of(manifest)}
    assert verify(manifest.url, 1) == []


def test_nothing_usable_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_text("hi")
    with pytest.raises(DataError, match=r"none of 1 images can be used: a\.jpg is not a JPEG"):
        pack(pack_config(tmp_path / "images", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_same_command_again_says_so_and_changes_nothing(images: Path, tmp_path: Path) -> None:
    config = pack_config(images, tmp_path / "out")
    pack(config)
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert pack(config).samples == 20
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before


def test_another_config_or_other_images_on_a_set_is_an_error(images: Path, tmp_path: Path) -> None:
    pack(pack_config(images, tmp_path / "out"))
    before = file_bytes(tmp_path / "out")
    with pytest.raises(DataError, match=r"image.quality is 95 there and 80 here.*--force"):
        pack(pack_config(images, tmp_path / "out", image={"quality": 80}))
    write_image(images / "NO" / "new.jpg")
    with pytest.raises(DataError, match="from other images"):
        pack(pack_config(images, tmp_path / "out"))
    assert file_bytes(tmp_path / "out") == before


def test_force_replaces_a_set_and_leaves_nothing_of_it(images: Path, tmp_path: Path) -> None:
    pack(pack_config(images, tmp_path / "out", out={"name": "old"}))
    config = pack_config(images, tmp_path / "out", out={"shard_mb": 1.0})
    manifest = pack(config, force=True)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    beside = ["DATACARD.md", "examples.jpg", "manifest.json"]
    assert names == [*beside, "oct-000000.idx", "oct-000000.tar", "quality.html"]
    assert manifest.samples == 20


def test_a_set_that_is_replaced_by_the_same_one_is_the_same_under_other_names(
    images: Path, tmp_path: Path
) -> None:
    config = pack_config(images, tmp_path / "out")
    first = pack(config)
    again = pack(config, force=True)
    assert [shard.name for shard in again.shards] == [n.name.replace("oct-", "oct.2-") for n in first.shards]
    assert set_fingerprint(again.shards) == set_fingerprint(first.shards), "a run on it goes on"
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith("oct-")]
    third = pack(config, force=True)
    assert third.shards == first.shards, "the first names were free again"
    assert pack(config) == third
    assert verify(third.url, 1) == []


def test_a_replacement_of_which_nothing_can_be_used_leaves_the_old_set_as_it_was(
    images: Path, tmp_path: Path
) -> None:
    pack(pack_config(images, tmp_path / "out"))
    before = file_bytes(tmp_path / "out")
    for number in range(30):
        path = tmp_path / "bad" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no image")
    for budget, said in ((100, "none of 30 images can be used"), (2, "3 of 30 images cannot be used")):
        config = pack_config(tmp_path / "bad", tmp_path / "out", out={"bad_sample_budget": budget})
        with pytest.raises(DataError, match=said):
            pack(config, force=True)
        assert file_bytes(tmp_path / "out") == before


def test_a_replacement_that_comes_to_nothing_leaves_the_names_of_the_old_set(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETFOUND_SALT", "a secret of this test alone, long enough")
    table = tmp_path / "names.csv"
    hidden = {"source": {"keys": "digest"}, "out": {"names_table": str(table), "bad_sample_budget": 99}}
    pack(build_config(images, tmp_path / "out", hidden))
    before = table.read_bytes()
    assert len(before.splitlines()) == 21
    (tmp_path / "other" / "images").mkdir(parents=True)
    (tmp_path / "other" / "images" / "x.jpg").write_bytes(b"no image")
    config = build_config(tmp_path / "other" / "images", tmp_path / "out", hidden)
    with pytest.raises(DataError, match="none of 1 images can be used"):
        pack(config, force=True)
    assert table.read_bytes() == before
    write_image(tmp_path / "other" / "images" / "y.jpg", 77)
    pack(config, force=True)
    assert len(table.read_bytes().splitlines()) == 3


def build_config(source: Path, url: Path, more: dict[str, dict[str, Any]]) -> PackConfig:
    """`pack_config` with more settings of the source."""
    plain = pack_config(source, url, out=more["out"])
    return replace(plain, source=replace(plain.source, **more["source"]))


def test_a_replacement_that_is_broken_off_leaves_the_old_set_sound_and_goes_on(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(pack_config(images, tmp_path / "out", out={"seed": 4}))
    before = file_bytes(tmp_path / "out")
    for name in COUNTS:
        (images / name / "zz.jpg").write_bytes(b"no image")
    config = pack_config(images, tmp_path / "out", out={"bad_sample_budget": 1})
    with pytest.raises(DataError, match="2 of 22 images cannot be used"):
        pack(config, force=True)
    assert file_bytes(tmp_path / "out").items() >= before.items()
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert "belong to an unfinished pack, not to this set" in capsys.readouterr().out
    with pytest.raises(DataError, match="holds another shard set of"):
        pack(config)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("oct.2-*.tar")}
    assert kept
    manifest = pack(replace(config, out=replace(config.out, bad_sample_budget=2)), force=True)
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("oct.2-*.tar")}
    assert times.items() >= kept.items()
    assert manifest.samples == 20
    assert verify(manifest.url, 1) == []


@pytest.mark.parametrize("scheme", ["file://", "memory:/"])
def test_any_url_holds_the_same_set_as_a_path(images: Path, tmp_path: Path, scheme: str) -> None:
    plain = pack(pack_config(images, tmp_path / "plain"))
    other = pack(pack_config(images, f"{scheme}{tmp_path}/other"))
    assert other.shards == plain.shards
    assert verify(other.url, 1) == []
    storage.delete(other.url)


def test_a_name_that_is_no_file_name_is_an_error(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"out\.name='a/b'"):
        pack(pack_config(images, tmp_path / "out", out={"name": "a/b"}))


def test_deep_grey_and_colour_files_come_back_as_they_should(tmp_path: Path) -> None:
    images = tmp_path / "images"
    (images / "A").mkdir(parents=True)
    grey = scan_pixels(3)
    Image.fromarray(grey.astype(np.uint16) * 256).save(images / "A" / "deep.png")
    Image.fromarray(np.stack([grey] * 3, -1)).save(images / "A" / "rgb.tif")
    Image.fromarray(np.stack([grey, grey, grey // 2], -1)).save(images / "A" / "colour.bmp")
    found = {
        s["__key__"]: np.asarray(Image.open(io.BytesIO(s["png"])))
        for s in samples_of(pack(pack_config(images, tmp_path / "out", image={"format": "png"})))
    }
    assert (found["A_rgb"] == grey).all()
    assert found["A_deep"].dtype == np.uint8
    assert np.corrcoef(found["A_deep"].ravel(), grey.ravel())[0, 1] > 0.99
    assert found["A_colour"].shape == (48, 64, 3)


def test_the_demo_preset_packs_the_phantom(tmp_path: Path) -> None:
    config, _ = load(
        PackConfig,
        "configs/demo/pack.toml",
        [
            "phantom.patients=5",
            "phantom.slices=2",
            f"out.url={tmp_path}/out",
            "out.workers=1",
        ],
    )
    manifest = pack(config)
    assert manifest.samples == 10
    assert manifest.classes == ("AMRD", "CSR", "DR", "MH", "NORMAL")
    assert manifest.sources["phantom"]["patients"] == 5
    assert verify(manifest.url, 1) == []


@pytest.mark.slow
def test_octdl_packs_whole_with_patients_apart(test_data: Path, tmp_path: Path) -> None:
    config, _ = load(
        PackConfig,
        "configs/demo/pack.toml",
        [
            "source.kind=folder",
            f"source.path={test_data}/octdl",
            f"out.url={tmp_path}/out",
        ],
    )
    manifest = pack(config)
    assert (manifest.samples, len(manifest.skipped), len(manifest.classes)) == (1527, 0, 7)
    assert manifest.image["stored_as_is"] == 1527
    parts: dict[str, set[str]] = {}
    for sample in samples_of(manifest):
        fields = json.loads(sample["json"])
        parts.setdefault(fields["patient"], set()).add(fields["split"])
    assert len(parts) == 614
    assert all(len(found) == 1 for found in parts.values())
    assert verify(manifest.url) == []
