"""What commands say of a labelled set: parts, images left out, images that were seen in pretraining."""

from __future__ import annotations

from typing import Any

from retfound_dist.config.schema import EvalData, External, Task
from retfound_dist.evaluate.data import external_validation, pretraining_overlap
from retfound_dist.evaluate.data.labelled_set import LabelledSet, SplitPart
from retfound_dist.evaluate.data.starting_weights import StartingWeights
from retfound_dist.evaluate.scores import wording
from retfound_dist.evaluate.task_results.task_wording import describe_task
from retfound_dist.evaluate.tasks.task_facts import facts_of
from retfound_dist.model.backbones.backbone import Backbone
from retfound_dist.runtime.progress import ProgressDisplay


def load_labelled(
    config: EvalData,
    backbone: Backbone,
    show: ProgressDisplay,
    external: External | None = None,
    task: Task | None = None,
) -> LabelledSet:
    """Decode the labelled set and the external set, and show the progress."""
    show.begin(f"reading {config.path}")
    data = external_validation.load_with_external(
        config, external, backbone.image_size, show.advance, backbone.preparation.interpolation, task
    )
    parts = ", ".join(f"{name} {len(part)}" for name, part in data.parts.items())
    split_by = wording.describe_split(data.split_source, data.unit_counts)
    predicted = describe_task(facts_of(data)) if data.targets else f"{len(data.classes)} classes"
    show.say(f"{config.path}: {predicted}; {parts} images; split {split_by}")
    if data.columns:
        show.say(data.columns)
    for note in data.notes:
        show.say(f"note: {note}")
    for key, reason in data.skipped[:10]:
        show.say(f"left out: {key}: {reason}")
    for warning in data.warnings:
        show.say(f"warning: {warning}")
    if data.external:
        if data.external.columns:
            show.say(data.external.columns)
        for note in data.external.notes:
            show.say(f"note: {data.external.path}: {note}")
        show.say(
            f"{data.external.path}: "
            f"{wording.describe_external(external_validation.describe(data.external, data.classes))}"
        )
    return data


def show_pretraining_overlap(overlap: dict[str, Any], show: ProgressDisplay, row: str = "") -> None:
    """Show `overlap_line`, where there is one. `row`: the name of the row and a colon, behind `warning:`."""
    if line := pretraining_overlap.overlap_line(overlap, row):
        show.say(line)


def add_pretraining_overlap(
    tree: dict[str, Any], start: StartingWeights, part: SplitPart, show: ProgressDisplay
) -> dict[str, Any]:
    """The external test, with the number of its images that the weights were pretrained on."""
    overlap = pretraining_overlap.count_overlap(start, {"test": part})
    warning = wording.external_overlap_warning(overlap)
    if warning:
        show.say(f"warning: {tree['data']['path']}: {warning}")
    return {
        **tree,
        "pretrained_on": overlap,
        "warnings": [*tree["warnings"], *([warning] if warning else [])],
    }
