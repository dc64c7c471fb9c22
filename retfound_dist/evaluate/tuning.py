"""The same tuning for every starting weights: base rates tried with one seed, chosen by validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from timm.models.vision_transformer import VisionTransformer

from retfound_dist.evaluate.finetune import Outcome
from retfound_dist.schema import Finetune

Run = Callable[[Finetune], tuple[Outcome, VisionTransformer]]
"""One fine-tuning with the first seed."""


@dataclass(frozen=True)
class Tuned:
    """What came of the first seed, by the rate that was chosen."""

    recipe: Finetune
    outcome: Outcome
    model: VisionTransformer
    tried: list[dict[str, Any]]
    """`base_lr` and `val_auroc` of each rate tried, for metrics.json; empty where there was no choice."""


def tune(recipe: Finetune, run: Run) -> Tuned:
    """Try every rate of `try_base_lr` (or take `base_lr`), keep the one with the best validation AUROC.

    Without a validation AUROC the first is kept; of equals the first too.
    """
    if not recipe.try_base_lr:
        return Tuned(recipe, *run(recipe), [])
    best: Tuned | None = None
    tried: list[dict[str, Any]] = []
    for rate in recipe.try_base_lr:
        recipe = replace(recipe, base_lr=rate)
        found = Tuned(recipe, *run(recipe), tried)
        tried.append({"base_lr": rate, "val_auroc": val_auroc(found.outcome)})
        if best is None or _rank(found) > _rank(best):
            best = found
    assert best is not None
    return best


def val_auroc(outcome: Outcome) -> float | None:
    """Of the epoch that was kept."""
    value: float | None = outcome.history[outcome.epoch - 1]["val_auroc"]
    return value


def _rank(found: Tuned) -> float:
    value = val_auroc(found.outcome)
    return -1.0 if value is None else value
