"""The autoencoder against a forward pass worked out independently in float64 numpy."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from retfound_dist.errors import ConfigError
from retfound_dist.model import mae
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.schema import Model

CONFIG = Model(name="vit_demo_patch14", image_size=56, decoder_width=32, decoder_depth=2, decoder_heads=2)


def build(config: Model) -> MaskedAutoencoder:
    torch.manual_seed(0)
    model = MaskedAutoencoder(config).eval()
    with torch.no_grad():  # biases and norms away from 0 and 1, so that none can be forgotten
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def model() -> MaskedAutoencoder:
    return build(CONFIG)


def images_and_noise(
    channels: int, batch: int = 3, size: tuple[int, int] = (56, 56)
) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, (batch, channels, *size), dtype=torch.uint8, generator=draw)
    return images, torch.rand(batch, size[0] * size[1] // 14**2, generator=draw)


def numpy_forward(
    model: MaskedAutoencoder, images: torch.Tensor, noise: torch.Tensor, ratio: float
) -> np.ndarray:
    """MAE's loss a sample, from the paper, one image and one token at a time where that is clearer."""
    w = {k: v.detach().double().numpy() for k, v in model.state_dict().items()}
    (height, width), count, losses = images.shape[2:], noise.shape[1], []
    for image, draw in zip(images.numpy().astype(np.float64), noise.numpy(), strict=True):
        rgb = np.repeat(image, 3, axis=0) if len(image) == 1 else image
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        x = (rgb / 255 - mean[:, None, None]) / std[:, None, None]
        patches = [x[:, r : r + 14, c : c + 14] for r in range(0, height, 14) for c in range(0, width, 14)]
        order = np.argsort(draw, kind="stable")
        keep, removed = np.split(order, [int(count * (1 - ratio))])
        kernel = w["patch_embed.proj.weight"]
        tokens = [w["cls_token"][0, 0] + w["pos_embed"][0, 0]]
        for i in keep:
            embedded = np.tensordot(kernel, patches[i], axes=3) + w["patch_embed.proj.bias"]
            tokens.append(embedded + w["pos_embed"][0, 1 + i])
        latent = layer_norm(transformer(np.array(tokens), w, "blocks", 6, 3), w, "norm")
        embedded = latent @ w["decoder_embed.weight"].T + w["decoder_embed.bias"]
        full = np.tile(w["mask_token"][0, 0], (count + 1, 1))
        full[0] = embedded[0]
        for position, i in enumerate(keep):
            full[1 + i] = embedded[1 + position]
        full = full + w["decoder_pos_embed"][0]
        full = layer_norm(transformer(full, w, "decoder_blocks", 2, 2), w, "decoder_norm")
        pred = full[1:] @ w["decoder_pred.weight"].T + w["decoder_pred.bias"]
        errors = []
        for i in removed:
            target = patches[i].transpose(1, 2, 0).reshape(-1)
            target = (target - target.mean()) / math.sqrt(target.var(ddof=1) + 1e-6)
            errors.append(((pred[i] - target) ** 2).mean())
        losses.append(np.mean(errors))
    return np.array(losses)


def layer_norm(x: np.ndarray, w: dict, name: str) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6) * w[f"{name}.weight"]
        + w[f"{name}.bias"]
    )


def transformer(x: np.ndarray, w: dict, name: str, depth: int, heads: int) -> np.ndarray:
    for block in range(depth):
        p = f"{name}.{block}"
        h = layer_norm(x, w, f"{p}.norm1")
        qkv = h @ w[f"{p}.attn.qkv.weight"].T + w[f"{p}.attn.qkv.bias"]
        q, k, v = (part.reshape(len(x), heads, -1).transpose(1, 0, 2) for part in np.split(qkv, 3, axis=1))
        score = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        score = np.exp(score - score.max(axis=-1, keepdims=True))
        mixed = (score / score.sum(axis=-1, keepdims=True)) @ v
        mixed = mixed.transpose(1, 0, 2).reshape(len(x), -1)
        x = x + mixed @ w[f"{p}.attn.proj.weight"].T + w[f"{p}.attn.proj.bias"]
        h = layer_norm(x, w, f"{p}.norm2") @ w[f"{p}.mlp.fc1.weight"].T + w[f"{p}.mlp.fc1.bias"]
        h = 0.5 * h * (1 + np.vectorize(math.erf)(h / math.sqrt(2)))
        x = x + h @ w[f"{p}.mlp.fc2.weight"].T + w[f"{p}.mlp.fc2.bias"]
    return x


@pytest.mark.parametrize("channels", [1, 3])
def test_loss_equals_the_papers_formula_worked_out_in_numpy(model: MaskedAutoencoder, channels: int) -> None:
    images, noise = images_and_noise(channels)
    ours = model(images, noise).detach().numpy()
    np.testing.assert_allclose(ours, numpy_forward(model, images, noise, 0.75), rtol=2e-5)


@pytest.mark.parametrize("size", [(28, 84), (70, 42)])
def test_an_input_that_is_not_square_follows_the_same_formula(size: tuple[int, int]) -> None:
    wide = build(replace(CONFIG, image_size=size, mask_ratio=0.85))
    assert wide.grid == (size[0] // 14, size[1] // 14)
    images, noise = images_and_noise(1, size=size)
    np.testing.assert_allclose(
        wide(images, noise).detach().numpy(), numpy_forward(wide, images, noise, 0.85), rtol=2e-5
    )
    filled, mask_BL = wide.reconstruct(images, noise)
    assert filled.shape == (3, 3, *size)
    assert mask_BL.sum(dim=1).tolist() == [wide.patches - wide.kept] * 3


def test_raw_pixels_are_the_target_where_the_config_says_so() -> None:
    plain, images = build(replace(CONFIG, norm_pix_loss=False)), images_and_noise(1)
    model = build(CONFIG)
    assert not torch.allclose(plain(*images), model(*images))
    ids = images[1].argsort(dim=1)
    raw = mae.normalise(mae.take(mae.patchify(images[0], 14), ids[:, 4:]))
    latent = plain.encode(mae.normalise(mae.take(mae.patchify(images[0], 14), ids[:, :4])), ids[:, :4])
    pred = plain.predict(mae.take(plain.decode(latent, ids), ids[:, 4:]))
    torch.testing.assert_close(plain(*images), (pred - raw).square().mean(dim=(1, 2)))


def test_every_patch_is_removed_equally_often_and_no_two_together_more_than_others() -> None:
    """Of 4,000 masks: each patch in 0.75, each pair in 0.75 x 11/15, within five standard errors."""
    model, draws = build(CONFIG), 4000
    noise = torch.rand(draws, 16, generator=torch.Generator().manual_seed(3))
    ids_keep = noise.argsort(dim=1)[:, : model.kept]
    removed = torch.ones(draws, 16).scatter(1, ids_keep, 0)
    single, pair = removed.mean(dim=0), removed.T @ removed / draws
    assert ((single - 0.75).abs() < 5 * math.sqrt(0.75 * 0.25 / draws)).all()
    share = 0.75 * 11 / 15
    apart = ~torch.eye(16, dtype=torch.bool)
    assert ((pair[apart] - share).abs() < 5 * math.sqrt(share * (1 - share) / draws)).all()


def test_grey_equals_the_same_image_in_rgb(model: MaskedAutoencoder) -> None:
    images, noise = images_and_noise(1)
    torch.testing.assert_close(model(images, noise), model(images.expand(-1, 3, -1, -1).contiguous(), noise))


def test_mask_removes_the_stated_share_and_reconstruction_keeps_what_is_visible(
    model: MaskedAutoencoder,
) -> None:
    images, noise = images_and_noise(1)
    filled, mask_BL = model.reconstruct(images, noise)
    assert mask_BL.sum(dim=1).tolist() == [12, 12, 12]
    kept = (
        (mask_BL == 0)
        .reshape(3, 1, 4, 4)
        .repeat_interleave(14, 2)
        .repeat_interleave(14, 3)
        .expand(-1, 3, -1, -1)
    )
    assert torch.equal(filled[kept], images.expand(-1, 3, -1, -1)[kept])
    assert not torch.equal(filled[~kept], images.expand(-1, 3, -1, -1)[~kept])


def test_every_trained_parameter_gets_a_gradient_and_positions_none() -> None:
    model = MaskedAutoencoder(CONFIG)
    model(*images_and_noise(1)).mean().backward()
    for name, parameter in model.named_parameters():
        if name in ("pos_embed", "decoder_pos_embed"):
            assert not parameter.requires_grad
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_removed_patches_do_not_reach_the_encoder(model: MaskedAutoencoder) -> None:
    images, noise = images_and_noise(1, batch=1)
    removed = int(noise.argmax())
    other = images.clone()
    row, column = divmod(removed, 4)
    other[..., 14 * row : 14 * row + 14, 14 * column : 14 * column + 14] = 0
    ids = noise.argsort(dim=1)[:, : model.kept]
    encoded = [model.encode(mae.normalise(mae.take(mae.patchify(x, 14), ids)), ids) for x in (images, other)]
    assert torch.equal(*encoded)


def test_activation_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for again in (False, True):
        torch.manual_seed(0)
        model = MaskedAutoencoder(CONFIG, activation_checkpointing=again).train()
        model(*images_and_noise(1)).mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("name", "size", "millions", "patches"),
    [
        ("vit_base_patch16", 224, (86, 112), 196),
        ("vit_large_patch16", 224, (303, 330), 196),
        ("vit_huge_patch14", 224, (631, 657), 256),
        ("vit_large_patch16", 256, (303, 330), 256),
        ("vit_large_patch16", (128, 512), (303, 330), 256),
    ],
)
def test_models_have_the_papers_sizes(
    name: str, size: int | tuple[int, int], millions: tuple[int, int], patches: int
) -> None:
    """Encoder and whole, in millions of parameters (MAE, table 8 and its published files)."""
    with torch.device("meta"):
        model = MaskedAutoencoder(Model(name=name, image_size=size))
    encoder = sum(p.numel() for n, p in model.named_parameters() if not n.startswith(("decoder", "mask")))
    assert round(encoder / 1e6) == millions[0]
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions[1]
    assert (model.patches, model.kept) == (patches, patches // 4)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (Model(name="vit_lage_patch16"), "vit_large_patch16"),
        (Model(name="vit_demo_patch14", image_size=100), "multiple of 14"),
        (Model(decoder_width=100), "decoder_heads"),
    ],
)
def test_a_model_that_cannot_be_is_refused_with_a_remedy(config: Model, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        MaskedAutoencoder(config)
