"""Fine-tuning as the papers have it, written out without the code under test."""

from __future__ import annotations

import math

import torch
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing

from retfound_dist.config.schema import Finetune
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.finetune.training_batches import batches, seeded_generators
from retfound_dist.model.mae import IMAGENET_MEAN, IMAGENET_STD


def layer_of(name: str, depth: int = 6) -> int:
    """0: the embeddings; block i: i + 1; the last norm and the head: depth + 1 (BEiT's numbers)."""
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    return depth + 1 if name.startswith(("fc_norm.", "head.")) else 0


def plain_finetuning(
    model: torch.nn.Module, data: LabelledSet, recipe: Finetune, seed: int
) -> tuple[list[float], list[float]]:
    """The recipe as the papers have it, written out: the mean loss and the last rate of each epoch.

    The batches are the ones that `finetune` reads; timm's operators erase rectangles, with the draws of
    (seed, 13, epoch, step), and mix images, with those of (seed, 14, epoch, step).
    """
    train, classes = data.parts["train"], len(data.classes)
    decay = {n: 0.0 if p.ndim <= 1 or n in ("cls_token", "pos_embed") else recipe.weight_decay
             for n, p in model.named_parameters()}  # fmt: skip
    optimizer = torch.optim.AdamW(
        [{"params": [p], "weight_decay": decay[n], "name": n} for n, p in model.named_parameters()], lr=0.0
    )
    erase = RandomErasing(recipe.random_erasing, mode="pixel", device="cpu")
    steps, peak = math.ceil(len(train) / recipe.batch), recipe.base_lr * recipe.batch / 256
    stream = batches(train.images, train.labels.tolist(), recipe, 28, seed, workers=0)
    losses, rates = [], []
    torch.manual_seed(seed + 1)  # for stochastic depth
    model.train()
    for epoch in range(recipe.epochs):
        total = 0.0
        for step in range(steps):
            images, labels = next(stream)
            done = epoch + step / steps
            rate = peak * done / recipe.warmup_epochs
            if done >= recipe.warmup_epochs:
                share = (done - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
                rate = recipe.min_lr + (peak - recipe.min_lr) * (1 + math.cos(math.pi * share)) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate * recipe.layer_decay ** (7 - layer_of(group["name"]))
            mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
            whole = (images.float() / 255 - mean) / std
            with seeded_generators((seed, 13, epoch, step)):
                shown = erase(whole.clone())
            assert (shown != whole).any() == (recipe.random_erasing > 0)
            smooth = torch.full((len(labels), classes), recipe.label_smoothing / classes)
            smooth[torch.arange(len(labels)), labels] += 1 - recipe.label_smoothing
            if recipe.mixup:
                pairs = len(labels) // 2 * 2
                mix = Mixup(recipe.mixup, label_smoothing=recipe.label_smoothing, num_classes=classes)
                with seeded_generators((seed, 14, epoch, step)):
                    shown[:pairs], smooth[:pairs] = mix(shown[:pairs], labels[:pairs])
            loss = -(smooth * model(shown).log_softmax(1)).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(labels)
        losses.append(total / len(train))
        rates.append(rate)
    return losses, rates
