"""Features of folders and shard sets: the encoder's own, resumable, whole or not there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from retfound_dist.cli import main
from retfound_dist.errors import ConfigError, DataError
from retfound_dist.evaluate.commands import embed
from retfound_dist.evaluate.commands.embed import embed_command
from retfound_dist.evaluate.data import set_layouts
from retfound_dist.evaluate.pixels.gray_pixels import decode_grey, resize_for_testing
from retfound_dist.evaluate.probe import frozen_features
from retfound_dist.formats.shard_set import Shard
from retfound_dist.io import finished_parts
from retfound_dist.model import mae
from retfound_dist.model.weights.weight_files import autoencoder_from, read_weights
from tests.evaluate.inputs import checkpoint, class_folders, image_bytes, shard_set


@pytest.fixture
def held(tmp_path: Path) -> tuple[str, Path, str]:
    """A checkpoint, a folder of images, a file to write."""
    return checkpoint(tmp_path / "run", 3), class_folders(tmp_path / "set", each=4), str(tmp_path / "f.npz")


def test_features_are_the_mean_of_the_encoders_patch_tokens(held: tuple[str, Path, str]) -> None:
    url, images, out = held
    assert embed_command(url, str(images), out, quiet=True) == 0
    found = np.load(out)
    model = autoencoder_from(read_weights(url))
    path = images / str(found["keys"][5])
    pixels = torch.from_numpy(resize_for_testing(decode_grey(path.read_bytes()), 28))[None, None]
    with torch.no_grad():
        tokens = model.encode(mae.normalise(mae.patchify(pixels, 14)), torch.arange(4)[None])
    np.testing.assert_allclose(found["features"][5], tokens[0, 1:].mean(dim=0), rtol=1e-4, atol=1e-5)
    assert found["keys"].tolist() == sorted(found["keys"].tolist())
    assert '"step": 3' in str(found["checkpoint"])


def test_what_was_embedded_is_not_embedded_again(
    held: tuple[str, Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, images, out = held
    embed_command(url, str(images), out, quiet=True)
    whole, calls = np.load(out)["features"], []
    real = frozen_features.compute_features
    monkeypatch.setattr(embed, "PART_IMAGES", 5)

    def ended(model: object, backbone: object, pixels: list[object], tick: object) -> object:
        calls.append(len(pixels))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(model, backbone, pixels, tick)  # type: ignore[arg-type]

    monkeypatch.setattr(embed, "compute_features", ended)
    Path(out).unlink()
    with pytest.raises(KeyboardInterrupt):
        embed_command(url, str(images), out, quiet=True)
    assert not Path(out).exists()
    embed_command(url, str(images), out, quiet=True)
    assert calls == [5, 5, 5, 2]
    np.testing.assert_allclose(np.load(out)["features"], whole, atol=1e-5)
    assert not Path(f"{out}.parts").exists()


def test_parts_of_other_images_of_the_same_sizes_or_of_other_weights_are_not_taken(
    held: tuple[str, Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, images, out = held
    kept = Path(f"{out}.parts")
    # As if ended just before the parts go.
    monkeypatch.setattr(finished_parts, "delete_parts", lambda *_: None)
    embed_command(url, str(images), out, quiet=True)
    assert len(list(kept.iterdir())) == 1
    Path(out).unlink()
    path = images / "MH" / "MH_1.jpg"
    data = path.read_bytes()
    other = next(d for s in range(1000) if len(d := image_bytes(1, 5000 + s)) == len(data) and d != data)
    path.write_bytes(other)
    embed_command(url, str(images), out, quiet=True)
    assert len(list(kept.iterdir())) == 2
    fresh = str(tmp_path / "fresh.npz")
    embed_command(url, str(images), fresh, quiet=True)
    np.testing.assert_array_equal(np.load(out)["features"], np.load(fresh)["features"])
    path.write_bytes(data)
    embed_command(url, str(images), out, quiet=True, force=True)
    assert len(list(kept.iterdir())) == 2
    embed_command(checkpoint(tmp_path / "other", 3, seed=1), str(images), out, quiet=True, force=True)
    assert len(list(kept.iterdir())) == 3


def test_shards_and_parquet(held: tuple[str, Path, str], tmp_path: Path) -> None:
    import pyarrow.parquet

    samples: list[dict[str, str | None]] = [{"key": f"k{i}", "label": None} for i in range(3)]
    out = str(tmp_path / "f.parquet")
    embed_command(held[0], str(shard_set(tmp_path / "shards", samples)), out, quiet=True)
    table = pyarrow.parquet.read_table(out)
    assert table["key"].to_pylist() == ["k0", "k1", "k2"]
    assert np.array(table["features"].to_pylist()).shape == (3, 192)
    assert b'"step": 3' in table.schema.metadata[b"checkpoint"]


def test_what_is_passed_over_is_said_and_links_are_followed_as_in_pack(
    held: tuple[str, Path, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    url, images, out = held
    far = tmp_path / "far.jpg"
    far.write_bytes(next(images.rglob("*.jpg")).read_bytes())
    (images / "far.jpg").symlink_to(far)
    (images / "x.npy").write_bytes(b"x")
    embed_command(url, str(images), out)
    said = "".join(capsys.readouterr())
    assert "note: passed over: 1 file .npy, such as x.npy: not an image" in said
    assert "1 link that leads out of the folder, such as far.jpg -> " in said
    assert "--follow-links follows them" in said
    count = len(np.load(out)["keys"])
    assert main(["embed", url, str(images), "--out", str(tmp_path / "more.npz"), "--follow-links"]) == 0
    assert len(np.load(tmp_path / "more.npz")["keys"]) == count + 1


def test_shards_are_read_once_each_and_not_held(
    held: tuple[str, Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shard_set(tmp_path / "shards", [{"key": f"k{i}", "label": None} for i in range(2)])
    tree = json.loads((root / "manifest.json").read_text())
    (only,) = tree["shards"]
    tree |= {"samples": 10, "shards": [{**only, "name": f"oct-{i}.tar"} for i in range(5)]}
    (root / "manifest.json").write_text(json.dumps(tree))
    for shard in tree["shards"]:
        (root / shard["name"]).write_bytes((root / only["name"]).read_bytes())
    read = []
    real = set_layouts.read_shard

    def counted(url: str, shard: Shard) -> bytes:
        read.append(shard.name)
        return real(url, shard)

    monkeypatch.setattr(set_layouts, "read_shard", counted)
    items, _ = embed.list_images(str(root))
    assert read == []
    for item in items:
        item.read()
    assert read == [f"oct-{i}.tar" for i in range(5)]
    assert len(items[-1].read.func.__self__.cached_shards) == 2  # type: ignore[attr-defined]


def test_how_fast_it_is_is_shown_as_it_goes(
    held: tuple[str, Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, images, out = held
    monkeypatch.setattr(embed, "PART_IMAGES", 5)
    monkeypatch.setattr("retfound_dist.runtime.progress.PLAIN_FIRST_S", 0.0)
    embed_command(url, str(images), out)
    said = capsys.readouterr().out
    assert re.search(r"features of .*: 5 of 12, [\d,.]+ images/s", said)


def test_an_image_that_cannot_be_read_is_left_out_and_named(
    held: tuple[str, Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    url, images, out = held
    (images / "MH" / "broken.jpg").write_bytes(b"\xff\xd8 no jpeg")
    assert embed_command(url, str(images), out) == 0
    said = capsys.readouterr().out
    assert "left out: MH/broken.jpg" in said
    assert "12 images x 192 features" in said
    assert "images/s" in said
    assert np.load(out)["skipped"][0].startswith("MH/broken.jpg")


def test_mistakes_are_one_line(held: tuple[str, Path, str], tmp_path: Path) -> None:
    url, images, _ = held
    with pytest.raises(ConfigError, match=r"\.npz or \.parquet"):
        embed_command(url, str(images), str(tmp_path / "f.csv"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images"):
        embed_command(url, str(tmp_path / "empty"), str(tmp_path / "f.npz"))
    (tmp_path / "empty" / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of the 1 images"):
        embed_command(url, str(tmp_path / "empty"), str(tmp_path / "f.npz"), quiet=True)
    assert main(["embed", url, str(tmp_path / "none"), "--out", str(tmp_path / "f.npz")]) == 2
    assert not (tmp_path / "f.npz").exists()
