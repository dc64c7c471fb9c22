"""Sentences on probes, and the message of an alarm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retfound_dist.config.schema import Alarm
from retfound_dist.evaluate.scores.wording import LABELS, format_number, format_score

PROBES = {"linear": "linear probe", "knn": "nearest neighbours", "attentive": "attentive probe"}
OUTDATED_PROBES = (
    "its probes are of an earlier version, which magnified the test images by 14 %: do not compare them with "
    "new ones (the fine-tuned scores are not affected); `retfound evaluate --force` makes them again, or "
    "delete the row's folder and compare again"
)


def attentive_gain(probes: Mapping[str, Any] | None) -> list[str]:
    """A sentence on the attentive probe beside the linear one; empty where they were not compared.

    `probes`: the entry `probe` of metrics.json, or probe.json.
    """
    gap = ((probes or {}).get("attentive") or {}).get("minus_linear")
    if not gap or gap["difference"] is None or gap["ci95"] is None:
        return []
    sign = "+" if gap["difference"] > 0 else ""
    low, high = (format_number(end) for end in gap["ci95"])
    numbers = (
        f"{LABELS[gap['metric']]} {sign}{format_number(gap['difference'])}, 95 % interval {low} to {high}"
    )
    if not gap["real"]:
        return [f"No clear difference between the attentive probe and the linear probe: {numbers}."]
    verdict = "better" if gap["difference"] > 0 else "worse"
    return [f"The attentive probe is {verdict} than the linear probe: {numbers}."]


def alarm_message(
    kind: str, step: int, other: int, rule: Alarm, difference: float | None, span: Sequence[float] | None
) -> str:
    """The message of an alarm: what is worse, by how much, and what to check."""
    best_before = f"step {other:,}, the best before it"
    reference = "its own starting weights" if kind == "worse_than_start" else best_before
    probe = PROBES[rule.method]
    return (
        f"step {step:,} is worse than {reference}: {probe}, {LABELS[rule.metric]} "
        f"{format_score(difference, span)}. Check the recipe (`retfound plan`) and the loss before continuing"
    )
