"""Gated attention over the images of a unit.

Ilse et al. 2018, "Attention-based Deep Multiple Instance Learning", equations 7 to 9:

    a_k = softmax_k(w' (tanh(V h_k) * sigmoid(U h_k)))        z = sum_k a_k h_k        logits = W z + b

Shapes: B units of a batch, K images of the largest unit, D features, A width of the attention, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.listing.unit_names import UnitIndex

ATTENTION_WIDTH = 128
"""A. Ilse et al. use 128 too."""
Features = NDArray[np.float32]


class AttentionPool(nn.Module):
    """Features of a unit's images to its logits and the weight of each image.

    It begins as the mean: all weights are equal, and `start_from` gives it the network's own classifier.
    """

    shift_D: Tensor
    scale_D: Tensor

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("shift_D", torch.zeros(width))
        self.register_buffer("scale_D", torch.ones(width))
        self.tanh_gate = nn.Linear(width, ATTENTION_WIDTH)
        self.sigmoid_gate = nn.Linear(width, ATTENTION_WIDTH)
        # Without a bias: the softmax removes it.
        self.strength = nn.Linear(ATTENTION_WIDTH, 1, bias=False)
        self.head = nn.Linear(width, classes)
        nn.init.zeros_(self.strength.weight)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @torch.no_grad()
    def start_from(self, features_ND: Tensor, classifier: nn.Module | None) -> None:
        """Standardise by these features, and begin with the network's classifier where it is linear.

        Features and classifier may be on other devices than this head.
        """
        self.shift_D.copy_(features_ND.mean(0))
        # Features that never change have no scale.
        self.scale_D.copy_(features_ND.std(0, correction=0).clamp(min=1e-6))
        if isinstance(classifier, nn.Linear) and classifier.weight.shape == self.head.weight.shape:
            weight_CD = classifier.weight.float().to(self.scale_D.device)
            self.head.weight.copy_(weight_CD * self.scale_D)
            self.head.bias.copy_(weight_CD @ self.shift_D)
            if classifier.bias is not None:
                self.head.bias.add_(classifier.bias.float().to(self.scale_D.device))

    def forward(self, features_BKD: Tensor, present_BK: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C) and weights (B, K). `present_BK`: false where a unit has fewer images."""
        standard_BKD = (features_BKD - self.shift_D) / self.scale_D
        gated_BKA = torch.tanh(self.tanh_gate(standard_BKD)) * torch.sigmoid(self.sigmoid_gate(standard_BKD))
        strength_BK = self.strength(gated_BKA).squeeze(2).masked_fill(~present_BK, -torch.inf)
        weights_BK = strength_BK.softmax(1)
        pooled_BD = (weights_BK[:, :, None] * standard_BKD).sum(1)
        return self.head(pooled_BD), weights_BK


def pool_of_state(state: Mapping[str, Tensor]) -> AttentionPool:
    """The attention head with these weights; RuntimeError where they are not those of one."""
    if "head.weight" not in state:
        raise RuntimeError("the attention head has no head.weight")
    classes, width = state["head.weight"].shape
    pool = AttentionPool(width, classes)
    pool.load_state_dict(dict(state))
    return pool.eval().requires_grad_(False)


def pad_units(features_ND: Tensor, places: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """(B, K, D) and (B, K): the features of these units' images, filled up with zeros."""
    longest = max(map(len, places))
    features_BKD = features_ND.new_zeros(len(places), longest, features_ND.shape[1])
    present_BK = torch.zeros(len(places), longest, dtype=torch.bool, device=features_ND.device)
    for row, images in enumerate(places):
        features_BKD[row, : len(images)] = features_ND[torch.from_numpy(images).to(features_ND.device)]
        present_BK[row, : len(images)] = True
    return features_BKD, present_BK


@torch.inference_mode()
def attend(pool: AttentionPool, features_ND: Features, index: UnitIndex) -> tuple[Floats, Floats]:
    """Probabilities (U, C) of the units, and the weight (N,) of each image in its unit."""
    pool.eval()
    device: Any = pool.shift_D.device
    # In the order of the units, and copied back once: each copy between host and GPU waits for the GPU.
    order_N = np.concatenate(index.images_of_units)
    rows_ND = torch.from_numpy(features_ND[order_N]).to(device)
    probabilities, weights, start = [], [], 0
    # One unit at a time: filling up would change the last digits, so a unit would depend on its neighbours.
    for images in index.images_of_units:
        rows_1KD = rows_ND[None, start : start + len(images)]
        present_1K = torch.ones(rows_1KD.shape[:2], dtype=torch.bool, device=device)
        logits_1C, weights_1K = pool(rows_1KD, present_1K)
        probabilities.append(logits_1C[0].double().softmax(0))
        weights.append(weights_1K[0].double())
        start += len(images)
    weights_N = np.zeros(len(features_ND))
    weights_N[order_N] = torch.cat(weights).cpu().numpy()
    return torch.stack(probabilities).cpu().numpy(), weights_N
