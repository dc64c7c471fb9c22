"""Turns scores and their intervals into sentences, for the terminal and the page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from retfound_dist.evaluate.scores.unit_wording import describe_pooling, describe_test_part, unit_noun
from retfound_dist.files.skipped_files import HIDDEN_FILES
from retfound_dist.listing import split_units

LABELS = {
    "acc": "ACC (one-vs-rest)",
    "accuracy": "accuracy (top-1)",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "auroc": "AUROC",
    "aupr": "AUPR",
    "f1": "F1",
    "mcc": "MCC",
    "kappa": "kappa",
    "log_loss": "log loss",
    "ece": "calibration error",
}
_FEW_UNITS = 30


def format_score(value: float | None, span: Sequence[float] | None, digits: int = 3) -> str:
    """`0.812 [0.770, 0.851]`, or a dash where undefined."""
    if value is None:
        return "-"
    text = format_number(value, digits)
    return f"{text} [{format_number(span[0], digits)}, {format_number(span[1], digits)}]" if span else text


def format_number(value: float, digits: int = 3) -> str:
    """A number with fixed digits, a typographic minus sign and no minus zero."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "\u2212") if float(text) else text.removeprefix("-")


def describe_start(checkpoint: Mapping[str, Any]) -> str:
    """The starting weights of an evaluation as a phrase."""
    if checkpoint["kind"] == "none":
        return "random weights (no pretraining)"
    if checkpoint["step"] is None:
        part = f" ({checkpoint['part']})" if checkpoint.get("part") else ""
        return f"the weights file {checkpoint['url']}{part}"
    progress = f"step {checkpoint['step']:,}, {checkpoint['samples']:,} images seen"
    return f"the checkpoint {checkpoint['url']} ({progress})"


def summary(metrics: Mapping[str, Any]) -> list[str]:
    """One evaluation in a few sentences."""
    macro, spans = metrics["macro"], metrics["ci95"]["macro"]
    classes = len(metrics["classes"])

    def with_interval(name: str) -> str:
        return f"{LABELS[name]} {format_score(macro[name], spans[name])}"

    test_images = describe_test_part(metrics) + (
        f" of {metrics['patients']} patients" if metrics["patients"] else ""
    )
    sentences = [
        f"The classifier was fine-tuned from {describe_start(metrics['checkpoint'])}. "
        f"It reaches {with_interval('auroc')}, {with_interval('aupr')} and "
        f"{with_interval('balanced_accuracy')} (means over {classes} classes) on {test_images}, which were "
        "not used for fine-tuning.",
        describe_pooling(metrics),
        _compare_with_guessing(macro["balanced_accuracy"], spans["balanced_accuracy"], classes),
        describe_intervals(metrics),
    ]
    return [sentence for sentence in sentences if sentence]


def describe_intervals(metrics: Mapping[str, Any], row: str = "") -> str:
    """What the intervals include. `row`: the name of the weights, where there are several."""
    text, seeds = describe_resamples(metrics), len(metrics["seeds"])
    if seeds == 1:
        return text
    text += f" Scores are computed from the mean probabilities of {seeds} fine-tuning seeds."
    auroc = metrics["over_seeds"]["macro"]["auroc"]
    if auroc["std"] is not None:
        of_row = f" of “{row}”" if row else ""
        text += (
            f" A single seed{of_row} has a mean AUROC of {auroc['mean']:.3f} with a standard deviation of "
            f"{auroc['std']:.3f}."
        )
    return text


def describe_resamples(metrics: Mapping[str, Any]) -> str:
    """What the intervals are drawn from, of any task, and whether they include the seeds."""
    bootstrap, seeds = metrics["bootstrap"], len(metrics["seeds"])
    unit = f"{bootstrap['unit']}s"
    if bootstrap["unit"] != "patient":
        unit += f" (not every patient is known; the intervals are too narrow if patients have several {unit})"
    resamples = f"{bootstrap['resamples']:,} bootstrap resamples of the {bootstrap['units']} test {unit}"
    # Evaluations of older versions resampled only patients and have no `seeds` here.
    if bootstrap.get("seeds", 1) > 1:
        resamples += f" and of the {seeds} fine-tuning seeds"
    text = f"Brackets show 95 % intervals from {resamples}."
    if seeds > 1:
        return text
    return f"{text} They do not include the variation between fine-tuning seeds: only one seed was run."


def warnings(metrics: Mapping[str, Any]) -> list[str]:
    """Everything that makes the scores less reliable."""
    sentences = set_warnings(metrics)
    sentences += _relevant_notes(metrics.get("notes", []))
    outside = metrics.get("external", {}).get("notes", [])
    sentences += [f"external set: {note}" for note in _relevant_notes(outside)]
    sentences += part_warnings(metrics)
    small = [c for c, n in metrics["split"]["per_class"]["test"].items() if n < 10]
    if small:
        which = "these classes" if len(small) > 1 else "this class"
        sentences.append(
            f"fewer than 10 test {unit_noun(metrics)} of {', '.join(small)}: scores of {which} are unreliable"
        )
    if undefined_warning(metrics):
        sentences.append(undefined_warning(metrics))
    return sentences


def set_warnings(metrics: Mapping[str, Any]) -> list[str]:
    """What is wrong with the labelled set, for any task: leaks, pretraining on it, images left out."""
    sentences = list(metrics["warnings"])
    if pretrained := pretrained_warning(metrics["checkpoint"].get("pretrained_on")):
        sentences.append(pretrained)
    if metrics["skipped"]:
        examples = "; ".join(f"{row['key']}: {row['reason']}" for row in metrics["skipped"][:5])
        sentences.append(f"{len(metrics['skipped'])} images were left out ({examples})")
    return sentences


def part_warnings(metrics: Mapping[str, Any]) -> list[str]:
    """For any task: a test part of few patients, and none for validation."""
    units, sentences = metrics["bootstrap"]["units"], []
    if units < _FEW_UNITS:
        sentences.append(
            f"the test part has only {units} {metrics['bootstrap']['unit']}s, so the intervals are rough"
        )
    if not metrics["split"]["val"]:
        sentences.append("there is no validation part, so the last epoch was kept")
    return sentences


def describe_split(by: str, known_by: Mapping[str, int]) -> str:
    """How the set was split, and how many patients are known: `at random by volume (60 images, ...)`.

    `known_by` is empty in evaluations of older versions.
    """
    words = split_units.describe_units(known_by)
    if by in ("given", "file"):
        origin = "given by the set" if by == "given" else "given by the split file (data.split_file)"
        images, known = sum(known_by.values()), known_by.get("patient", 0)
        if not images or known == images:
            return origin
        return f"{origin}; the patient of {images - known:,} of {images:,} images is not known"
    return f"at random {words}" if words else f"at random by {by}"


def pretrained_warning(overlap: Mapping[str, Any] | None) -> str:
    """A warning where the weights were pretrained on val or test images; else empty."""
    if not overlap or not any(overlap.get(part) for part in ("val", "test")):
        return ""
    counts = ", ".join(
        _share_seen(overlap, part) for part in ("test", "val", "train") if part in overlap["of"]
    )
    return (
        f"these weights were pretrained on images of this set ({counts}), so scores on new images may be "
        "lower: pretrain without its val and test parts (data.split=auto), or test on another set"
    )


def pretrained_note(overlap: Mapping[str, Any] | None) -> str:
    """The number of images of the set that the weights were pretrained on, in one line."""
    if not overlap:
        return "not checked (the evaluation is from an older version)"
    if any(overlap.get(part) is None for part in overlap["of"]):
        return f"whether these weights were pretrained on images of this set is {overlap['how']}"
    if not any(overlap[part] for part in overlap["of"]):
        return f"no image of this set ({overlap['how']})"
    return f"{', '.join(_share_seen(overlap, part) for part in overlap['of'])} images ({overlap['how']})"


def external_overlap_warning(tree: Mapping[str, Any] | None) -> str:
    """The warning for an external set; empty where the count is 0 or unknown."""
    if not tree or not tree.get("test"):
        return ""
    return f"the weights were pretrained on {tree['test']:,} of its {tree['of']['test']:,} images"


def probe_overlap_warning(overlap: Mapping[str, Any] | None) -> str:
    """The warning for the images that `watch` probes; empty where the count is 0 or unknown."""
    count = sum(overlap.get(part) or 0 for part in overlap["of"]) if overlap else 0
    if not overlap or not count:
        return ""
    counts = ", ".join(_share_seen(overlap, part) for part in overlap["of"])
    return (
        f"The run pretrains on images that are probed here ({counts}), so its checkpoints may look better "
        "than they are on new images."
    )


def _share_seen(overlap: Mapping[str, Any], part: str) -> str:
    return f"{overlap[part] or 0:,} of {overlap['of'][part]:,} {part}"


def _relevant_notes(notes: Sequence[str]) -> list[str]:
    # Most folders have a .DS_Store or Thumbs.db, and nobody has to act on it: such lines would hide real
    # warnings. They are still in metrics.json.
    return [note for note in notes if HIDDEN_FILES not in note]


def describe_tuning(chosen: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> str:
    """The recipe that was chosen on the val part and its AUROC, then the other recipes and theirs."""

    def described(line: Mapping[str, Any]) -> str:
        return f"{_recipe(line['recipe'])} (val AUROC {format_score(line['val_auroc'], None)})"

    best = next(described(line) for line in tried if line["recipe"] == chosen)
    others = [described(line) for line in tried if line["recipe"] != chosen]
    return "; also tried: ".join([best, *([", ".join(others)] if others else [])])


def _recipe(change: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={json.dumps(value)}" for key, value in change.items()) or "the recipe unchanged"


def describe_external(tree: Mapping[str, Any]) -> str:
    """Describes the external test: its images, the class map, and what was left out."""
    images = f"{tree['images']} {unit_noun(tree)}"
    images += f" ({tree['of_images']} images)" if "of_images" in tree else ""
    images += f" of {tree['patients']} patients" if tree["patients"] else ""
    pairs = ", ".join(f"{name} = {' + '.join(to)}" for name, to in tree["class_map"].items())
    clauses = [
        f"{images} from another set, none used for fine-tuning; class of the model = its labels: {pairs}"
    ]
    if tree["left_out"]:
        counts = ", ".join(f"{label} {count}" for label, count in tree["left_out"].items())
        total = sum(tree["left_out"].values())
        clauses.append(f"{total} images with unmapped labels are left out ({counts})")
    if tree["dropped_classes"]:
        dropped = ", ".join(tree["dropped_classes"])
        clauses.append(f"probabilities of {dropped} are dropped and the rest is scaled to sum to 1")
    if tree["skipped"]:
        clauses.append(f"{len(tree['skipped'])} images cannot be used")
    return "; ".join([*clauses, *tree["warnings"]]) + "."


def undefined_warning(metrics: Mapping[str, Any]) -> str:
    """Why some scores are shown as a dash; empty where all are defined."""
    reasons = [
        reason
        for kind in ("macro", "legacy")
        for name, reason in metrics[kind]["undefined"].items()
        # F1 is undefined wherever precision is, for the same class, so its reason would be a repetition.
        if name != "f1" or metrics[kind]["undefined"].keys() == {"f1"}
    ]
    return f"some scores are undefined (shown as -): {'; '.join(dict.fromkeys(reasons))}" if reasons else ""


def format_p(p: float) -> str:
    """A p value with two or three digits: `0.012`, `below 0.001`."""
    return "below 0.001" if p < 0.001 else f"{min(p, 1.0):.3g}" if p < 0.1 else f"{min(p, 1.0):.2f}"


def _compare_with_guessing(value: float | None, span: Sequence[float] | None, classes: int) -> str:
    # A constant prediction is right for all images of one class and for no other image.
    chance = 1 / classes
    if value is None or span is None or not math.isfinite(value):
        return ""
    if span[0] <= chance:
        return f"Guessing gives a balanced accuracy of {chance:.2f}: this result may be due to guessing."
    return f"Guessing gives a balanced accuracy of {chance:.2f} and an AUROC of 0.50."
