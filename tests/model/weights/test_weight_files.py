import argparse
import pickle
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from retfound_dist.config.schema import Model
from retfound_dist.errors import WeightsError
from retfound_dist.model.mae import EncoderShape, MaskedAutoencoder
from retfound_dist.model.vit import build_classifier
from retfound_dist.model.weights.export import export
from retfound_dist.model.weights.weight_files import load_into, read_weights

CONFIG = Model(name="vit_demo_patch14", image_size=56, decoder_width=32, decoder_depth=1, decoder_heads=2)


@pytest.fixture
def model() -> MaskedAutoencoder:
    torch.manual_seed(1)
    return MaskedAutoencoder(CONFIG)


@pytest.fixture
def file(model: MaskedAutoencoder, tmp_path: Path) -> str:
    """As MAE publishes its weights: under `model`, with its arguments beside them."""
    path = tmp_path / "mae.pth"
    torch.save({"model": model.state_dict(), "args": argparse.Namespace(lr=1e-3), "epoch": 3}, path)
    return str(path)


@pytest.mark.parametrize("kind", ["mae", "safetensors"])
def test_export_and_reading_back_is_bit_exact(
    file: str, model: MaskedAutoencoder, kind: str, tmp_path: Path
) -> None:
    target = str(tmp_path / ("out.safetensors" if kind == "safetensors" else "out.pth"))
    export(read_weights(file), kind, target)
    again = read_weights(target)
    assert again.state.keys() == model.state_dict().keys()
    assert all(torch.equal(again.state[k], v) for k, v in model.state_dict().items())
    assert again.shape == EncoderShape(192, 6, 3, 14)
    assert again.image_size == 56


def test_timm_loads_the_export_strictly_and_gives_the_same_features(
    file: str, model: MaskedAutoencoder, tmp_path: Path
) -> None:
    target = str(tmp_path / "timm.pth")
    export(read_weights(file), "timm", target)
    vit = VisionTransformer(
        img_size=56,
        patch_size=14,
        embed_dim=192,
        depth=6,
        num_heads=3,
        num_classes=0,
        global_pool="token",
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
    ).eval()
    vit.load_state_dict(torch.load(target, weights_only=True), strict=True)
    images = torch.randint(0, 256, (2, 1, 56, 56), dtype=torch.uint8)
    from retfound_dist.model.backbones.backbone import Preparation
    from retfound_dist.model.mae import normalise, patchify

    ids = torch.arange(16).expand(2, -1)
    ours = model.eval().encode(normalise(patchify(images, 14)), ids)
    torch.testing.assert_close(
        vit.forward_features(Preparation().normalise(images)), ours, atol=1e-5, rtol=1e-5
    )


def test_vit_large_bears_timms_own_key_names() -> None:
    with torch.device("meta"):
        names = MaskedAutoencoder(Model()).state_dict().keys()
        theirs = timm.create_model("vit_large_patch16_224", num_classes=0).state_dict().keys()
    assert {n for n in names if not n.startswith(("decoder", "mask_token"))} == set(theirs)


def test_a_classifier_takes_the_encoder_and_starts_the_head_afresh(file: str) -> None:
    vit = build_classifier(EncoderShape(192, 6, 3, 14), 112, 5)
    before = vit.head.weight.clone()
    loaded = load_into(vit, read_weights(file), (8, 8))
    assert set(loaded.initialised) == {"head.weight", "head.bias", "fc_norm.weight", "fc_norm.bias"}
    assert torch.equal(vit.head.weight, before)
    assert torch.equal(vit.blocks[3].attn.qkv.weight, read_weights(file).state["blocks.3.attn.qkv.weight"])


def test_an_encoder_that_does_not_fit_is_an_error_that_names_the_tensors(file: str) -> None:
    other = MaskedAutoencoder(Model(name="vit_small_patch16", image_size=64))
    with pytest.raises(WeightsError, match=r"do not match .*patch_embed|do not match .*cls_token"):
        load_into(other, read_weights(file), (4, 4))


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('the file ran code')",))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "harmful.pth"
    torch.save({"model": {}, "args": Harmful()}, path)
    with pytest.raises(WeightsError, match="read safely"):
        read_weights(str(path))
    path.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(WeightsError, match="read safely"):
        read_weights(str(path))


@pytest.mark.parametrize("content", [b"x", b"", b"{}"])
def test_a_file_that_is_no_weights_is_refused(content: bytes, tmp_path: Path) -> None:
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match="not a weights file"):
            read_weights(str(tmp_path / name))


def test_a_folder_without_a_commit_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is an empty folder, not a checkpoint"):
        read_weights(str(tmp_path))
    with pytest.raises(WeightsError, match="no weights at"):
        read_weights(str(tmp_path / "none.pth"))


@pytest.mark.parametrize("name", ["timm:convnext_atto", "hf:who/what"])
def test_a_name_of_timm_or_the_hub_is_refused_where_an_autoencoder_is_needed(name: str) -> None:
    with pytest.raises(WeightsError, match=rf"{name} is a name for .*: here give the path of a checkpoint"):
        read_weights(name)
