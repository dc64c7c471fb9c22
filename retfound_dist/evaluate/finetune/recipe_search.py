"""Recipe search: tries recipes with one seed and chooses one on the val part, for all weights alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from retfound_dist.config.schema import Finetune
from retfound_dist.evaluate.finetune.finetuning import FinetuneResult

Run = Callable[[Finetune], tuple[FinetuneResult, nn.Module]]
"""One fine-tuning with the first seed."""


@dataclass(frozen=True)
class TuningResult:
    """The first seed's fine-tuning with the chosen recipe."""

    recipe: Finetune
    result: FinetuneResult
    model: nn.Module
    recipe_change: dict[str, Any]
    """The table of `try_recipes` that was chosen; empty where `try_recipes` is empty."""
    tried_recipes: list[dict[str, Any]]
    """`recipe` and `val_auroc` of each table, for metrics.json; empty where `try_recipes` is empty."""


def tune(recipe: Finetune, run: Run) -> TuningResult:
    """Try every table of `try_recipes` and keep the one with the best validation AUROC.

    The first is kept among equals, and where no validation AUROC is defined. Without tables, the recipe is
    run as it is.
    """
    if not recipe.try_recipes:
        return TuningResult(recipe, *run(recipe), {}, [])
    best: TuningResult | None = None
    tried: list[dict[str, Any]] = []
    for change in recipe.try_recipes:
        variant = recipe.with_change(change)
        candidate = TuningResult(variant, *run(variant), change, tried)
        # All candidates share this list, so the returned one also lists the recipes tried after it.
        tried.append({"recipe": change, "val_auroc": val_auroc(candidate.result)})
        if best is None or _rank(candidate) > _rank(best):
            best = candidate
    assert best is not None
    return best


def val_auroc(result: FinetuneResult) -> float | None:
    """Validation AUROC of the chosen epoch, or of the attention head; None where it is undefined."""
    if result.attention:
        return result.attention.val_auroc
    value: float | None = result.history[result.chosen_epoch - 1]["val_auroc"]
    return value


def _rank(candidate: TuningResult) -> float:
    value = val_auroc(candidate.result)
    # Below every AUROC, so that a recipe without one never wins against a recipe with one.
    return -1.0 if value is None else value
