"""Heat maps: the numbers of an independent computation, and a planted signal found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import erf, softmax
from timm.models.vision_transformer import VisionTransformer

from retfound_dist.evaluate.finetune.heatmaps import attention_of, heat_maps
from retfound_dist.model.backbones.backbone import Preparation
from retfound_dist.model.backbones.plain_vit import PlainVit
from retfound_dist.model.mae import EncoderShape
from retfound_dist.model.vit import build_classifier

SIDE, GRID, PATCH = 32, 4, 8
SHAPE = EncoderShape(width=32, depth=3, heads=4, patch=PATCH)
BACKBONE = PlainVit(None, SHAPE, SIDE)
BACKBONE = PlainVit(None, SHAPE, SIDE)


def classifier(seed: int = 0, classes: int = 3) -> VisionTransformer:
    """A small classifier whose attention is far from even."""
    torch.manual_seed(seed)
    model = build_classifier(SHAPE, SIDE, classes)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name.endswith("weight") and weights.ndim > 1:
                weights.normal_(0, 0.25)
    return model.eval()


def images(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE), np.uint8))


def numpy_maps(model: VisionTransformer, image: np.ndarray, asked: int) -> tuple[np.ndarray, np.ndarray]:
    """Roll-out and gradient x token, written down from the formulas in float64."""
    w = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    pixels = Preparation().normalise(torch.from_numpy(image)[None, None])[0].double().numpy()
    patches = pixels.reshape(3, GRID, PATCH, GRID, PATCH).transpose(1, 3, 0, 2, 4).reshape(GRID**2, -1)
    kernel = w["patch_embed.proj.weight"].reshape(SHAPE.width, -1)
    x = np.vstack([w["cls_token"][0], patches @ kernel.T + w["patch_embed.proj.bias"]]) + w["pos_embed"][0]
    flow, deep = np.eye(len(x)), SHAPE.width // SHAPE.heads
    for b in range(SHAPE.depth):
        qkv = linear(norm(x, f"blocks.{b}.norm1"), f"blocks.{b}.attn.qkv")
        q, k, v = qkv.reshape(len(x), 3, SHAPE.heads, deep).transpose(1, 2, 0, 3)
        attention = softmax(q @ k.transpose(0, 2, 1) / np.sqrt(deep), axis=-1)
        flow = (0.5 * attention.mean(0) + 0.5 * np.eye(len(x))) @ flow
        x = x + linear((attention @ v).transpose(1, 0, 2).reshape(len(x), -1), f"blocks.{b}.attn.proj")
        hidden = linear(norm(x, f"blocks.{b}.norm2"), f"blocks.{b}.mlp.fc1")
        x = x + linear(hidden * 0.5 * (1 + erf(hidden / np.sqrt(2))), f"blocks.{b}.mlp.fc2")

    def logit(tokens: np.ndarray) -> float:
        return float(linear(norm(tokens[1:].mean(0), "fc_norm"), "head")[asked])

    along = np.zeros(GRID**2)
    for place in range(GRID**2):
        ends = []
        for step in (1e-4, -1e-4):
            moved = x.copy()
            moved[place + 1] *= 1 + step
            ends.append(logit(moved))
        along[place] = (ends[0] - ends[1]) / 2e-4
    return flow[1:, 1:].mean(0).reshape(GRID, GRID), along.clip(min=0).reshape(GRID, GRID)


def test_both_maps_are_those_of_the_formulas() -> None:
    model, shown, asked = classifier(), images(3), [2, 0, 1]
    maps = heat_maps(model, BACKBONE, shown, asked)
    for i, image in enumerate(shown):
        rollout, gradient = numpy_maps(model, image, asked[i])
        assert rollout.std() > 0.1 * rollout.mean()
        assert maps.rollout[i] == pytest.approx(rollout, rel=1e-3)
        assert maps.gradient[i] == pytest.approx(gradient, rel=1e-2, abs=1e-4 * gradient.max())


def test_looking_leaves_the_model_as_it_was() -> None:
    model, batch = classifier(), Preparation().normalise(torch.from_numpy(np.stack(images(2))[:, None]))
    before = model(batch)
    fused = [block.attn.fused_attn for block in model.blocks]
    with attention_of(model) as held:
        beside = model(batch)
    assert [a.shape for a in held] == [(2, GRID**2 + 1, GRID**2 + 1)] * SHAPE.depth
    assert torch.allclose(before, beside, atol=1e-5)
    assert [block.attn.fused_attn for block in model.blocks] == fused
    assert not any(block.attn.attn_drop._forward_hooks for block in model.blocks)
    assert torch.equal(model(batch), before)
    assert all(p.grad is None for p in model.parameters())


def planted(count: int, seed: int) -> tuple[list[np.ndarray], list[int], list[int]]:
    """Noise; in half of the images one patch is bright: (images, class, its place)."""
    draw = np.random.default_rng(seed)
    found, labels, places = [], [], []
    for i in range(count):
        image = draw.integers(0, 160, (SIDE, SIDE)).astype(np.uint8)
        row, column = divmod(int(draw.integers(GRID**2)), GRID)
        if i % 2:
            image[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = 230
        found.append(image)
        labels.append(i % 2)
        places.append(row * GRID + column)
    return found, labels, places


def test_the_gradient_points_at_the_patch_that_decides() -> None:
    torch.manual_seed(0)
    model = build_classifier(SHAPE, SIDE, 2)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    shown, labels, _ = planted(256, 0)
    batch, truth = Preparation().normalise(torch.from_numpy(np.stack(shown)[:, None])), torch.tensor(labels)
    for step in range(60):
        part = slice(step % 4 * 64, step % 4 * 64 + 64)
        loss = torch.nn.functional.cross_entropy(model(batch[part]), truth[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fresh, labels, places = planted(64, 1)
    guess = (
        model.eval()(Preparation().normalise(torch.from_numpy(np.stack(fresh)[:, None]))).argmax(1).tolist()
    )
    assert np.mean(np.array(guess) == labels) > 0.95
    with_it = [i for i in range(64) if labels[i]]
    maps = heat_maps(model, BACKBONE, [fresh[i] for i in with_it], [1] * len(with_it))
    hottest = maps.gradient.reshape(len(with_it), -1).argmax(1)
    assert np.mean(hottest == [places[i] for i in with_it]) > 0.9
    against = heat_maps(model, BACKBONE, [fresh[i] for i in with_it], [0] * len(with_it)).gradient
    assert np.mean(against.reshape(len(with_it), -1).argmax(1) == [places[i] for i in with_it]) < 0.1
