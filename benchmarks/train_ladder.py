"""The rungs of `benchmarks.train_speed`: from the usual loop to ours, one saving at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from timm.layers.attention import Attention
from torch import Tensor, nn

from retfound_dist.model.backbones.backbone import Preparation
from retfound_dist.model.mae import MaskedAutoencoder, gather_rows, normalise, normalise_patches, patchify


@dataclass(frozen=True)
class Rung:
    """One way to train; the usual one by default."""

    label: str
    grey: bool = False
    """One uint8 channel goes to the device and is normalised there; else three floats do."""
    gather_first: bool = False
    """Visible patches are chosen before they are embedded; else all are embedded."""
    removed_only: bool = False
    """Pixels are predicted and compared for removed patches; else for all, and masked."""
    sdpa: bool = False
    """Attention by scaled_dot_product_attention, or by what `choose_cpu_operators` chooses; else by two
    products and a softmax."""
    unread: bool = False
    """The loss stays on the device; else it is read in each pass."""
    fused: bool = False
    """Fused AdamW."""
    compiled: bool = False
    """torch.compile."""
    precision: str = "fp32"
    """`fp32`, `autocast` to bf16, or `bf16`: bf16 weights, with fp32 ones and fp32 gradients beside them."""
    zero: int | None = None
    """ZeRO stage of the trainer's own step; None: a plain loop."""
    unpatched: bool = False
    """The trainer's step by DeepSpeed as it is; else by the engine that a run of one rank gets."""
    micro: int = 0
    """Images in a pass; 0: as on the command line."""
    shards: bool = False
    """Fed from shards by the stream; else one batch again and again."""


def climb(gpu: bool, micro: int) -> list[Rung]:
    """All rungs of a device; each adds one optimization to the one before."""
    usual_loop = Rung("usual loop", precision="autocast" if gpu else "fp32")
    steps: list[tuple[str, dict[str, bool]]] = [
        ("+ grey uint8 to the device", {"grey": True}),
        ("+ visible patches gathered, then embedded", {"gather_first": True}),
        ("+ only removed patches predicted", {"removed_only": True}),
        ("+ SDPA", {"sdpa": True}),
        ("+ loss left on the device", {"unread": True}),
        ("+ fused AdamW", {"fused": True}),
        ("+ torch.compile", {"compiled": True}),
    ]
    rungs = [usual_loop]
    for label, change in steps:
        rungs.append(replace(rungs[-1], label=label, **change))  # type: ignore[arg-type]
    best = rungs[-1]
    if not gpu:
        rungs.append(replace(best, label="ours, fp32, ZeRO 1", zero=1))
        rungs.append(replace(rungs[-1], label="DeepSpeed unpatched, fp32, ZeRO 1", unpatched=True))
        rungs.append(replace(usual_loop, label="usual loop in bf16 autocast", precision="autocast"))
    rungs.append(replace(best, label="+ weights in bf16, plain loop", precision="bf16"))
    ours = replace(best, label="ours, bf16, ZeRO 1", precision="bf16", zero=1)
    rungs += [ours, replace(ours, label="DeepSpeed unpatched, bf16, ZeRO 1", unpatched=True)]
    rungs.append(replace(ours, label="ours, not compiled", compiled=False))
    if gpu:
        for factor in (2, 4):
            rungs.append(replace(ours, label=f"ours, micro-batch {factor * micro}", micro=factor * micro))
        rungs.append(replace(ours, label="ours, fed from shards", shards=True))
    return rungs


class Climber(MaskedAutoencoder):
    """The autoencoder, without the optimizations that a rung does not have."""

    rung: Rung

    def on(self, rung: Rung) -> Climber:
        """Itself, on a rung."""
        self.rung = rung
        for module in self.modules():
            if isinstance(module, Attention):
                module.fused_attn = rung.sdpa
        return self

    def forward(self, images_BCHW: Tensor, noise_BL: Tensor) -> Tensor:
        """The losses (B,) of uint8 grey or normalised float RGB images and noise; equal on every rung."""
        if self.rung.removed_only:
            return super().forward(images_BCHW, noise_BL)
        ids_shuffle_BL = noise_BL.argsort(dim=1)
        ids_keep_BV = ids_shuffle_BL[:, : self.visible_patches]
        patches_BLPC = patchify(images_BCHW, self.shape.patch)
        values_BLK = normalise(patches_BLPC) if self.rung.grey else patches_BLPC.flatten(2)
        if self.rung.gather_first:
            latent = self.encode(gather_rows(values_BLK, ids_keep_BV), ids_keep_BV)
        else:
            latent = self._encode_all(values_BLK, ids_keep_BV)
        pred_BLK = self.predict(self.decode(latent, ids_shuffle_BL)).float()
        loss_BL = (pred_BLK - normalise_patches(values_BLK)).square().mean(dim=-1)
        mask_BL = torch.ones_like(noise_BL).scatter(1, ids_keep_BV, 0)
        return (loss_BL * mask_BL).sum(dim=1) / mask_BL.sum(dim=1)

    def _encode_all(self, values_BLK: Tensor, ids_keep_BV: Tensor) -> Tensor:
        x_BLD = self.patch_embed(values_BLK.to(self.cls_token.dtype)) + self.pos_embed[:, 1:]
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(x_BLD), -1, -1)
        x = torch.cat([cls, gather_rows(x_BLD, ids_keep_BV)], dim=1)
        encoded: Tensor = self.norm(self._run_blocks(self.blocks, x))
        return encoded


def rgb(images_B1HW: Tensor) -> Tensor:
    """The images of a usual loader: normalised floats in three channels."""
    return Preparation().normalise(images_B1HW).contiguous()


class MasterAdamW:
    """AdamW on fp32 copies of bf16 weights, with fp32 gradients: as DeepSpeed does, in plain PyTorch."""

    def __init__(self, groups: list[dict[str, object]], fused: bool) -> None:
        self.weights: list[nn.Parameter] = [p for group in groups for p in group["params"]]  # type: ignore[attr-defined]
        masters = {p: nn.Parameter(p.detach().float()) for p in self.weights}
        self.masters = [masters[p] for p in self.weights]
        wide = [{**group, "params": [masters[p] for p in group["params"]]} for group in groups]  # type: ignore[attr-defined]
        self.adamw = torch.optim.AdamW(wide, lr=1e-5, betas=(0.9, 0.95), fused=fused)
        for p in self.weights:
            p.register_post_accumulate_grad_hook(lambda q: self._keep(masters[q], q))  # type: ignore[no-untyped-call]
        for p in self.masters:
            p.grad = torch.zeros_like(p)

    @staticmethod
    def _keep(master: nn.Parameter, p: Tensor) -> None:
        assert master.grad is not None
        assert p.grad is not None
        master.grad.add_(p.grad)
        p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move the fp32 weights, copy them to the bf16 ones, clear the gradients."""
        self.adamw.step()
        torch._foreach_copy_([*self.weights], [*self.masters])
        torch._foreach_zero_([p.grad for p in self.masters if p.grad is not None])

    def zero_grad(self) -> None:
        """Nothing: `step` cleared them."""
