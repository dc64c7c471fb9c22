"""MAE's forward pass in float64 numpy, written from the paper, one image and one token at a time."""

import math

import numpy as np
import torch

from retfound_dist.model.mae import MaskedAutoencoder


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
