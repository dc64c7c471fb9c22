"""Recipe search: tries recipes with one seed and chooses by validation, alike for all starting weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from timm.models.vision_transformer import VisionTransformer

from retfound_dist.config.schema import Finetune
from retfound_dist.evaluate.finetune.finetuning import Outcome

Run = Callable[[Finetune], tuple[Outcome, VisionTransformer]]
"""One fine-tuning with the first seed."""


@dataclass(frozen=True)
class TuningResult:
    """The first seed's fine-tuning with the chosen recipe."""

    recipe: Finetune
    outcome: Outcome
    model: VisionTransformer
    change: dict[str, Any]
    """The table of `try_recipes` that was chosen; empty where there was no choice."""
    tried: list[dict[str, Any]]
    """`recipe` and `val_auroc` of each table tried, for metrics.json; empty where there was no choice."""


def tune(recipe: Finetune, run: Run) -> TuningResult:
    """Try every table of `try_recipes` (or the recipe as it is), keep that with the best validation AUROC.

    Without a validation AUROC the first is kept; of equals the first too.
    """
    if not recipe.try_recipes:
        return TuningResult(recipe, *run(recipe), {}, [])
    best: TuningResult | None = None
    tried: list[dict[str, Any]] = []
    for change in recipe.try_recipes:
        variant = recipe.with_change(change)
        candidate = TuningResult(variant, *run(variant), change, tried)
        # All candidates share this list, so the one that is returned knows those that were tried after it.
        tried.append({"recipe": change, "val_auroc": val_auroc(candidate.outcome)})
        if best is None or _rank(candidate) > _rank(best):
            best = candidate
    assert best is not None
    return best


def val_auroc(outcome: Outcome) -> float | None:
    """Validation AUROC of the epoch that was kept; None where it is undefined."""
    value: float | None = outcome.history[outcome.epoch - 1]["val_auroc"]
    return value


def _rank(candidate: TuningResult) -> float:
    value = val_auroc(candidate.outcome)
    # Below every AUROC, so that a recipe without one never wins against one that has it.
    return -1.0 if value is None else value
