"""The autoencoder against a forward pass worked out independently in float64 numpy."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from retfound_dist.config.schema import Model
from retfound_dist.errors import ConfigError
from retfound_dist.model import mae
from retfound_dist.model.mae import MaskedAutoencoder
from tests.model.mae_in_numpy import numpy_forward

CONFIG = Model(name="vit_demo_patch14", image_size=56, decoder_width=32, decoder_depth=2, decoder_heads=2)


def build(config: Model) -> MaskedAutoencoder:
    torch.manual_seed(0)
    model = MaskedAutoencoder(config).eval()
    with torch.no_grad():  # biases, norms, class positions away from 0 and 1, so that none can be forgotten
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for positions in (model.pos_embed, model.decoder_pos_embed):  # other people's weights have such
            positions[:, 0].add_(0.1 * torch.randn_like(positions[:, 0]))
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
    assert mask_BL.sum(dim=1).tolist() == [wide.patches - wide.visible_patches] * 3


def test_raw_pixels_are_the_target_where_the_config_says_so() -> None:
    plain, images = build(replace(CONFIG, norm_pix_loss=False)), images_and_noise(1)
    model = build(CONFIG)
    assert not torch.allclose(plain(*images), model(*images))
    ids = images[1].argsort(dim=1)
    raw = mae.normalise(mae.gather_rows(mae.patchify(images[0], 14), ids[:, 4:]))
    latent = plain.encode(mae.normalise(mae.gather_rows(mae.patchify(images[0], 14), ids[:, :4])), ids[:, :4])
    pred = plain.predict(mae.gather_rows(plain.decode(latent, ids), ids[:, 4:]))
    torch.testing.assert_close(plain(*images), (pred - raw).square().mean(dim=(1, 2)))


def test_every_patch_is_removed_equally_often_and_no_two_together_more_than_others() -> None:
    """Of 4,000 masks: each patch in 0.75, each pair in 0.75 x 11/15, within five standard errors."""
    model, draws = build(CONFIG), 4000
    noise = torch.rand(draws, 16, generator=torch.Generator().manual_seed(3))
    ids_keep = noise.argsort(dim=1)[:, : model.visible_patches]
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
    ids = noise.argsort(dim=1)[:, : model.visible_patches]
    encoded = [
        model.encode(mae.normalise(mae.gather_rows(mae.patchify(x, 14), ids)), ids) for x in (images, other)
    ]
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
    assert (model.patches, model.visible_patches) == (patches, patches // 4)


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


def test_weights_begin_as_maes_do() -> None:
    """Tokens normal with std 0.02, products Xavier-uniform (the patch embedding as one of 3 x 14 x 14 values), biases 0."""
    torch.manual_seed(1)
    model = MaskedAutoencoder(replace(CONFIG, decoder_width=256, decoder_heads=4))
    for token in (model.cls_token, model.mask_token):
        assert float(token.detach().std()) == pytest.approx(0.02, rel=0.25)
        assert abs(float(token.detach().mean())) < 0.01
    linears = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert "decoder_embed" in linears
    assert "decoder_pred" in linears
    kernels = {n: (m.weight, m.bias) for n, m in linears.items()}
    kernels["patch_embed.proj"] = model.patch_embed.proj.weight.flatten(1), model.patch_embed.proj.bias
    for name, (weight, bias) in kernels.items():
        bound = math.sqrt(6 / sum(weight.shape))
        assert 0.99 * bound < weight.abs().max() <= bound, name
        assert float(weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.02), name
        assert bias is not None, name
        assert not bias.any(), name
    norms = [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert {m.eps for m in norms} == {1e-6}
    assert all((m.weight == 1).all() and not m.bias.any() for m in norms)


def test_blocks_are_as_deep_and_as_wide_as_the_config_says() -> None:
    model = MaskedAutoencoder(replace(CONFIG, decoder_depth=3))
    assert (len(model.blocks), len(model.decoder_blocks)) == (6, 3)
    for block, width, heads in ((model.blocks[0], 192, 3), (model.decoder_blocks[2], 32, 2)):
        assert block.mlp.fc1.weight.shape == (4 * width, width)
        assert block.attn.num_heads == heads
    assert model.pos_embed.shape == (1, 17, 192)
    assert model.decoder_pos_embed.shape == (1, 17, 32)
    assert model.decoder_pred.out_features == 3 * 14 * 14


@pytest.mark.parametrize(("ratio", "kept"), [(0.75, 4), (0.8, 3), (0.9, 1), (0.5, 8), (0.7, 4)])
def test_the_visible_patches_are_the_whole_number_below_their_share(ratio: float, kept: int) -> None:
    assert MaskedAutoencoder(replace(CONFIG, mask_ratio=ratio)).visible_patches == kept


def test_the_smallest_noise_stays_visible(model: MaskedAutoencoder) -> None:
    images, _ = images_and_noise(1, batch=1)
    noise = torch.arange(16.0).flip(0)[None]
    _, mask_BL = model.reconstruct(images, noise)
    assert mask_BL.tolist() == [[1] * 12 + [0] * 4]


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_a_reconstruction_is_the_prediction_on_the_scale_of_the_patch(norm_pix_loss: bool) -> None:
    model, (images, noise) = build(replace(CONFIG, norm_pix_loss=norm_pix_loss)), images_and_noise(3)
    images[0] = 90  # one grey value: no spread to scale by
    ids = noise.argsort(dim=1)
    patches = mae.normalise(mae.patchify(images, 14))
    with torch.no_grad():
        visible = torch.gather(patches, 1, ids[:, :4, None].expand(-1, -1, patches.shape[2]))
        pred = model.predict(model.decode(model.encode(visible, ids[:, :4]), ids))
        if norm_pix_loss:
            pred = pred * (patches.var(dim=2, keepdim=True) + 1e-6).sqrt() + patches.mean(dim=2, keepdim=True)
    filled, mask_BL = model.reconstruct(images, noise)
    expected = torch.where(mask_BL[..., None] == 1, pred, patches)
    assert torch.equal(filled, mae.to_pixels(mae.unpatchify(expected, 14, (4, 4))))
    assert filled.dtype == torch.uint8


def test_a_reconstruction_keeps_nothing_for_a_backward_pass(model: MaskedAutoencoder) -> None:
    seen: list[bool] = []
    handle = model.norm.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    model.reconstruct(*images_and_noise(1))
    handle.remove()
    assert seen == [False]


@pytest.mark.parametrize(
    ("again", "training", "passes"), [(True, True, 2), (True, False, 1), (False, True, 1)]
)
def test_blocks_are_computed_again_in_training_alone_and_if_asked_for(
    again: bool, training: bool, passes: int
) -> None:
    model = MaskedAutoencoder(CONFIG, activation_checkpointing=again).train(training)
    seen: list[int] = []
    for block in (model.blocks[0], model.decoder_blocks[1]):
        block.register_forward_pre_hook(lambda *_: seen.append(1))
    model(*images_and_noise(1)).mean().backward()
    assert len(seen) == 2 * passes
    assert MaskedAutoencoder(CONFIG).activation_checkpointing is False


def test_in_bf16_the_loss_is_fp32_and_near_the_fp32_one() -> None:
    model, (images, noise) = build(CONFIG), images_and_noise(1)
    exact = model(images, noise)
    rough = build(CONFIG).to(torch.bfloat16)(images, noise)
    assert exact.dtype == rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"image_size": (56, 60)}, "multiple of 14"),
        ({"image_size": (60, 56)}, "multiple of 14"),
        ({"decoder_width": 102, "decoder_heads": 2}, "decoder_width=102 must be a multiple of 4"),
        ({"decoder_width": 32, "decoder_heads": 5}, "decoder_heads=5"),
    ],
)
def test_each_size_that_does_not_divide_is_refused(change: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        MaskedAutoencoder(replace(CONFIG, **change))
