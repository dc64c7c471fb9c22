"""The loss on patients that are never trained on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from retfound_dist.config.loading import load
from retfound_dist.config.schema import (
    Data,
    PackConfig,
    PackOut,
    Phantom,
    PretrainConfig,
    Source,
    Split,
)
from retfound_dist.errors import ConfigError, ManifestError
from retfound_dist.formats.checkpoint_folder import checkpoint_url
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.model.weights.weight_files import load_into, read_weights
from retfound_dist.runtime.world import World
from retfound_dist.stream.held_out_part import held_out_part
from retfound_dist.stream.loader import open_stream
from retfound_dist.train.held_out_loss import read_held_out
from retfound_dist.train.ranks.collectives import RankGroup
from shards.pack import pack
from tests.stream.stream_inputs import make_set
from tests.train.launching import SMALL, metrics, pretrain

TRAIN = ["data.split=train", "data.held_out_images=7", "train.precision=fp32"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A generated corpus split by patient."""
    eyes = Phantom(patients=20, slices=2, height=64, width=64)
    out = PackOut(url=str(tmp_path_factory.mktemp("set") / "set"), shard_mb=0.01, workers=1)
    config = PackConfig(
        source=Source(kind="phantom"), phantom=eyes, split=Split(fractions=(0.6, 0.2, 0.2)), out=out
    )
    return pack(config)


def config_of(manifest: Manifest, *overrides: str) -> PretrainConfig:
    settings = [f"data.shards={manifest.url}", "run.url=unused", *SMALL, *TRAIN, *overrides]
    return load(PretrainConfig, "configs/demo/pretrain.toml", settings)[0]


def test_what_is_trained_on_is_never_held_out(manifest: Manifest, tmp_path: Path) -> None:
    data = Data(shards=manifest.url)
    assert held_out_part(replace(data, split="train"), manifest) == "val"
    assert held_out_part(data, manifest) == ""
    assert held_out_part(replace(data, split="auto"), manifest) == "val"
    assert held_out_part(replace(data, split="train", held_out="none"), manifest) == ""
    assert held_out_part(replace(data, split="train", held_out="test"), manifest) == "test"
    for split in ("all", "val"):
        with pytest.raises(ConfigError, match="trained on"):
            held_out_part(replace(data, split=split, held_out="val"), manifest)  # type: ignore[arg-type]
    whole = make_set(tmp_path)
    for split in ("all", "auto"):
        assert held_out_part(replace(data, split=split), whole) == ""  # type: ignore[arg-type]
    with pytest.raises(ManifestError):
        held_out_part(replace(data, split="train", held_out="val"), whole)


def test_no_patient_is_both_trained_on_and_held_out(manifest: Manifest) -> None:
    keys = {}
    for split in ("train", "val"):
        samples = sum(shard.samples for shard in manifest.part(split))
        with open_stream(
            manifest, samples, data=Data(shards=manifest.url, split=split, workers=0), stop_step=1
        ) as s:  # type: ignore[arg-type]
            keys[split] = {key.split("_")[1] for batch in s for key in batch.keys}
    assert len(keys["val"]) > 1
    assert not keys["train"] & keys["val"]


@pytest.mark.parametrize(("ranks", "micro"), [(2, 2), (3, 4)])
def test_images_and_masks_are_the_same_at_any_number_of_ranks_and_seed(
    manifest: Manifest, ranks: int, micro: int
) -> None:
    def share(rank: int, size: int, micro: int, seed: int = 9) -> list[tuple[str, bytes]]:
        config = config_of(manifest, f"train.seed={seed}")
        group = RankGroup(World(rank, size, rank, size), torch.device("cpu"))
        held = read_held_out(config, manifest, group, micro, 4)
        assert held is not None
        assert held.count == 7
        return [
            (key, batch.images[row].numpy().tobytes() + batch.noise[row].numpy().tobytes())
            for batch in held.batches
            for row, key in enumerate(batch.keys)
        ]

    alone = share(0, 1, 7)
    assert share(0, 1, 7, seed=1) == alone
    assert len(alone) == 7
    assert sum((share(rank, ranks, micro) for rank in range(ranks)), []) == alone  # noqa: RUF017


@pytest.mark.slow
def test_each_checkpoint_has_the_loss_of_its_weights_at_any_ranks_and_stage(
    manifest: Manifest, tmp_path: Path
) -> None:
    for name, ranks, more in (("one", 1, []), ("two", 2, ["train.zero_stage=3"])):
        done = pretrain(
            ranks, tmp_path / name, manifest.url, *TRAIN, "train.steps=5", "checkpoint.every_steps=2", *more
        )
        assert done.returncode == 0, done.stderr
        assert "held out: 7 images of 'val'" in done.stderr
    rows, others = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    held = {row["step"]: row["held_out_loss"] for row in rows if "held_out_loss" in row}
    assert list(held) == [2, 4, 5]
    assert [row["held_out_loss"] for row in others if "held_out_loss" in row] == pytest.approx(
        list(held.values()), rel=1e-5
    )
    assert [r["loss"] for r in rows] == pytest.approx([r["loss"] for r in others], rel=1e-5)
    config = config_of(manifest)
    group = RankGroup(World(), torch.device("cpu"))
    for step, loss in held.items():
        model = MaskedAutoencoder(config.model)
        load_into(model, read_weights(checkpoint_url(str(tmp_path / "one"), step)), model.grid)
        part = read_held_out(config, manifest, group, 7, model.patches)
        assert part is not None
        with torch.no_grad():
            expected = model(part.batches[0].images, part.batches[0].noise).mean()
        assert loss == pytest.approx(float(expected), rel=1e-4)
