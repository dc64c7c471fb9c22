"""Files made by others: DINOv2's layout, grey embeddings, what cannot be read."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from retfound_dist.config.schema import Model
from retfound_dist.errors import WeightsError
from retfound_dist.io import storage
from retfound_dist.model.backbones.backbone import Preparation
from retfound_dist.model.mae import MaskedAutoencoder, normalise, patchify
from retfound_dist.model.vit import build_classifier
from retfound_dist.model.weights.weight_files import Weights, load_into, read_weights

MAE = Model(name="vit_demo_patch14", image_size=56, decoder_width=32, decoder_depth=1, decoder_heads=2)


def vit(**changes: Any) -> VisionTransformer:
    """timm's own ViT of the demo's shape, with nothing at its initial value."""
    settings = {
        "img_size": 56,
        "patch_size": 14,
        "embed_dim": 192,
        "depth": 6,
        "num_heads": 3,
        "num_classes": 0,
    }
    torch.manual_seed(2)
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    model = VisionTransformer(**{**settings, "norm_layer": norm, "global_pool": "token", **changes}).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.uniform_(0.2, 1.5) if name.endswith("gamma") else p.add_(0.02 * torch.randn_like(p))
    return model


def images() -> torch.Tensor:
    return torch.randint(
        0, 256, (2, 1, 56, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def features(weights: Weights) -> torch.Tensor:
    """All tokens, as our autoencoder's encoder gives them."""
    torch.manual_seed(0)
    model = MaskedAutoencoder(MAE).eval()
    load_into(model, weights, model.grid)
    found: torch.Tensor = model.encode(normalise(patchify(images(), 14)), torch.arange(16).expand(2, -1))
    return found


@pytest.mark.parametrize("chunked", [False, True])
def test_a_dinov2_teacher_gives_its_own_features(chunked: bool, tmp_path: Path) -> None:
    """LayerScale, `teacher`, `backbone.`, chunks of blocks, a mask token of the encoder's width, other heads."""
    theirs = vit(init_values=0.1)
    state = {f"backbone.{k}": v for k, v in theirs.state_dict().items()}
    if chunked:
        split = {}
        for key, value in state.items():
            head, block, rest = key.partition("blocks.")
            number = rest.split(".")[0]
            split[f"{head}blocks.{int(number) // 3}.{rest}" if block else key] = value
        state = split
    others = {"backbone.mask_token": torch.zeros(1, 192), "dino_head.mlp.0.weight": torch.zeros(3, 3)}
    torch.save({"teacher": state | others}, tmp_path / "dino.pth")
    weights = read_weights(str(tmp_path / "dino.pth"))
    expected = theirs.forward_features(Preparation().normalise(images()))
    torch.testing.assert_close(features(weights), expected, atol=1e-5, rtol=1e-5)
    classifier = build_classifier(weights.shape, 56, 5)
    loaded = load_into(classifier, weights, (4, 4))
    assert "dino_head.mlp.0.weight" in loaded.unused
    assert "dino_head" in loaded.summary(weights)


def test_positions_of_a_larger_grid_are_resampled(tmp_path: Path) -> None:
    theirs = vit(img_size=84)
    torch.save(theirs.state_dict(), tmp_path / "large.pth")
    weights = read_weights(str(tmp_path / "large.pth"))
    assert (weights.grid, weights.image_size) == ((6, 6), 84)
    assert features(weights).shape == (2, 17, 192)


def test_a_file_at_a_url_is_read(tmp_path: Path) -> None:
    torch.save(vit().state_dict(), tmp_path / "x.pth")
    storage.put_file(str(tmp_path / "x.pth"), "memory://weights/x.pth")
    assert torch.equal(
        features(read_weights("memory://weights/x.pth")), features(read_weights(str(tmp_path / "x.pth")))
    )


def test_a_grey_embedding_sees_the_mean_of_the_channels(tmp_path: Path) -> None:
    theirs = vit(in_chans=1)
    torch.save(theirs.state_dict(), tmp_path / "grey.pth")
    mean = Preparation().normalise(images()).mean(dim=1, keepdim=True)
    expected = theirs.forward_features(mean)
    torch.testing.assert_close(
        features(read_weights(str(tmp_path / "grey.pth"))), expected, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reg_tokens": 4}, "reg_token"),
        ({"img_size": (56, 84)}, "no square"),
        ({"qkv_bias": False}, "qkv.bias"),
        ({"depth": 5}, "blocks.5"),
        ({"patch_size": 7, "img_size": 28}, "patch_embed.proj.weight"),
    ],
)
def test_an_encoder_that_is_not_ours_is_an_error_that_says_why(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    torch.save(vit(**changes).state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=said):
        features(read_weights(str(tmp_path / "other.pth")))


def test_ibot_s_swin_is_refused_by_its_name(tmp_path: Path) -> None:
    names = ("patch_embed.proj.weight", "layers.0.blocks.0.norm1.weight", "layers.0.blocks.0.attn.qkv.weight")
    path = tmp_path / "w.pth"
    torch.save({"teacher": {f"backbone.{name}": torch.zeros(8) for name in names}}, path)
    with pytest.raises(WeightsError, match=r"w\.pth holds a Swin Transformer or a BEiT, which"):
        read_weights(str(path))
