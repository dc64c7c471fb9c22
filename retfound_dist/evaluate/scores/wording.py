"""Turns scores and their intervals into sentences, for the terminal and the page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from retfound_dist.config.schema import Alarm
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
_FEW = 30


def score(value: float | None, span: Sequence[float] | None, digits: int = 3) -> str:
    """`0.812 [0.770, 0.851]`, or a dash where undefined."""
    if value is None:
        return "-"
    text = number(value, digits)
    return f"{text} [{number(span[0], digits)}, {number(span[1], digits)}]" if span else text


def number(value: float, digits: int = 3) -> str:
    """Fixed digits, with a real minus sign and no minus zero."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "\u2212") if float(text) else text.removeprefix("-")


def describe_start(checkpoint: Mapping[str, Any]) -> str:
    """Names the starting weights of an evaluation."""
    if checkpoint["kind"] == "none":
        return "random weights (no pretraining)"
    if checkpoint["step"] is None:
        part = f" ({checkpoint['part']})" if checkpoint.get("part") else ""
        return f"the weights file {checkpoint['url']}{part}"
    seen = f"step {checkpoint['step']:,}, {checkpoint['samples']:,} images seen"
    return f"the checkpoint {checkpoint['url']} ({seen})"


def summary(metrics: Mapping[str, Any]) -> list[str]:
    """One evaluation in a few sentences."""
    macro, spans = metrics["macro"], metrics["ci95"]["macro"]
    classes = len(metrics["classes"])

    def with_interval(name: str) -> str:
        return f"{LABELS[name]} {score(macro[name], spans[name])}"

    test = metrics["split"]["test"]
    who = f"{test} test images" + (f" of {metrics['patients']} patients" if metrics["patients"] else "")
    sentences = [
        f"Fine-tuned from {describe_start(metrics['checkpoint'])}, the classifier reaches "
        f"{with_interval('auroc')}, {with_interval('aupr')} and {with_interval('balanced_accuracy')} "
        f"(means over {classes} classes) on {who} that fine-tuning had not seen.",
        _against_chance(macro["balanced_accuracy"], spans["balanced_accuracy"], classes),
        intervals(metrics),
    ]
    return [sentence for sentence in sentences if sentence]


def intervals(metrics: Mapping[str, Any], row: str = "") -> str:
    """What the intervals cover and what they leave out; `row` names the weights where there are several."""
    bootstrap = metrics["bootstrap"]
    unit = f"{bootstrap['unit']}s"
    if bootstrap["unit"] != "patient":
        unit += f" (not every patient is known, so they are too narrow if patients have several {unit})"
    drawn = f"{bootstrap['resamples']:,} bootstrap resamples of the {bootstrap['units']} test {unit}"
    seeds = len(metrics["seeds"])
    # Evaluations of older versions drew patients alone and have no `seeds` here.
    if bootstrap.get("seeds", 1) > 1:
        drawn += f" and of the {seeds} fine-tuning seeds"
    text = f"In brackets: 95 % intervals from {drawn}."
    if seeds == 1:
        text += " They leave out how much another fine-tuning seed would change the result: only one was run."
    else:
        std = metrics["over_seeds"]["macro"]["auroc"]["std"]
        mean = metrics["over_seeds"]["macro"]["auroc"]["mean"]
        whose = f" of “{row}”" if row else ""
        text += f" The scores are those of the mean of the probabilities of {seeds} fine-tuning seeds"
        text += (
            f"; one seed alone{whose} has AUROC {mean:.3f} with a standard deviation of {std:.3f}."
            if std is not None
            else "."
        )
    return text


def warnings(metrics: Mapping[str, Any]) -> list[str]:
    """Everything that limits how far the numbers can be trusted."""
    sentences = list(metrics["warnings"])
    if pretrained := pretrained_warning(metrics["checkpoint"].get("pretrained_on")):
        sentences.append(pretrained)
    if metrics["skipped"]:
        named = "; ".join(f"{row['key']}: {row['reason']}" for row in metrics["skipped"][:5])
        sentences.append(f"{len(metrics['skipped'])} images were left out ({named})")
    sentences += _worth_a_warning(metrics.get("notes", []))
    outside = metrics.get("external", {}).get("notes", [])
    sentences += [f"external set: {note}" for note in _worth_a_warning(outside)]
    units = metrics["bootstrap"]["units"]
    if units < _FEW:
        sentences.append(
            f"the test part has {units} {metrics['bootstrap']['unit']}s only: intervals from so few are rough"
        )
    small = [c for c, n in metrics["split"]["per_class"]["test"].items() if n < 10]
    if small:
        which = "these classes" if len(small) > 1 else "this class"
        sentences.append(f"fewer than 10 test images of {', '.join(small)}: scores of {which} say little")
    if not metrics["split"]["val"]:
        sentences.append("there is no validation part: the last epoch was kept")
    if undefined(metrics):
        sentences.append(undefined(metrics))
    return sentences


def split(by: str, known_by: Mapping[str, int]) -> str:
    """How the set was split, and how many patients are known: `by us, by volume (60 images, ...)`.

    `known_by` is empty in evaluations of older versions.
    """
    words = split_units.describe_units(known_by)
    if by in ("given", "file"):
        origin = "as the set brings it" if by == "given" else "as the split file says (data.split_file)"
        images, known = sum(known_by.values()), known_by.get("patient", 0)
        if not images or known == images:
            return origin
        return f"{origin}; the patient of {images - known:,} of {images:,} images is not known"
    return f"by us, {words}" if words else f"by us, by {by}"


def pretrained_warning(seen: Mapping[str, Any] | None) -> str:
    """Warns where the weights were pretrained on val or test images; empty otherwise."""
    if not seen or not any(seen.get(part) for part in ("val", "test")):
        return ""
    counts = ", ".join(_share_seen(seen, part) for part in ("test", "val", "train") if part in seen["of"])
    return (
        f"these weights were pretrained on images of this set ({counts}): scores on images that were seen "
        "in pretraining do not tell how well new ones are read; pretrain without its val and test parts "
        "(data.split=auto), or test on another set"
    )


def pretrained_note(seen: Mapping[str, Any] | None) -> str:
    """How many images of the set the weights were pretrained on, in one line."""
    if not seen:
        return "not looked at (an evaluation by an older version)"
    if any(seen.get(part) is None for part in seen["of"]):
        return f"whether these weights were pretrained on images of this set is {seen['how']}"
    if not any(seen[part] for part in seen["of"]):
        return f"no image of this set ({seen['how']})"
    return f"{', '.join(_share_seen(seen, part) for part in seen['of'])} images ({seen['how']})"


def external_overlap_warning(tree: Mapping[str, Any] | None) -> str:
    """The same warning for an external set; empty where none was seen or that is not known."""
    if not tree or not tree.get("test"):
        return ""
    return f"the weights were pretrained on {tree['test']:,} of its {tree['of']['test']:,} images"


def probe_overlap_warning(seen: Mapping[str, Any] | None) -> str:
    """The same for the images that `watch` probes; empty where the run pretrains on none of them."""
    count = sum(seen.get(part) or 0 for part in seen["of"]) if seen else 0
    if not seen or not count:
        return ""
    counts = ", ".join(_share_seen(seen, part) for part in seen["of"])
    return (
        f"The run pretrains on images that are probed here ({counts}): beside starting weights that never "
        "saw them its checkpoints look better than on new images."
    )


def _share_seen(seen: Mapping[str, Any], part: str) -> str:
    return f"{seen[part] or 0:,} of {seen['of'][part]:,} {part}"


def _worth_a_warning(notes: Sequence[str]) -> list[str]:
    # Nobody has to act on .DS_Store or Thumbs.db, and most folders hold one: such lines would hide real
    # warnings. metrics.json keeps them.
    return [note for note in notes if HIDDEN_FILES not in note]


def tuning(chosen: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> str:
    """The recipe that val chose, and its AUROC; then the others and theirs."""

    def described(line: Mapping[str, Any]) -> str:
        return f"{_recipe(line['recipe'])} (val AUROC {score(line['val_auroc'], None)})"

    best = next(described(line) for line in tried if line["recipe"] == chosen)
    others = [described(line) for line in tried if line["recipe"] != chosen]
    return "; also tried: ".join([best, *([", ".join(others)] if others else [])])


def _recipe(change: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={json.dumps(value)}" for key, value in change.items()) or "the recipe as it is"


def external(tree: Mapping[str, Any]) -> str:
    """Describes the external test: its images, the class map, and what was left out."""
    who = f"{tree['images']} images" + (f" of {tree['patients']} patients" if tree["patients"] else "")
    pairs = ", ".join(f"{name} = {' + '.join(to)}" for name, to in tree["class_map"].items())
    clauses = [f"{who} of another set, none of them fine-tuned on; the model's class = its labels: {pairs}"]
    if tree["left_out"]:
        named = ", ".join(f"{label} {count}" for label, count in tree["left_out"].items())
        clauses.append(f"{sum(tree['left_out'].values())} images of labels not mapped are left out ({named})")
    if tree["dropped_classes"]:
        dropped = ", ".join(tree["dropped_classes"])
        clauses.append(f"probabilities of {dropped} are dropped and the rest is scaled to sum to 1")
    if tree["skipped"]:
        clauses.append(f"{len(tree['skipped'])} images cannot be used")
    return "; ".join([*clauses, *tree["warnings"]]) + "."


def undefined(metrics: Mapping[str, Any]) -> str:
    """Why some scores are shown as a dash; empty where none is."""
    why = [
        reason
        for kind in ("macro", "legacy")
        for name, reason in metrics[kind]["undefined"].items()
        # F1 is undefined wherever precision is, for the same class: its reason would repeat that one.
        if name != "f1" or metrics[kind]["undefined"].keys() == {"f1"}
    ]
    return f"some scores are undefined (shown as -): {'; '.join(dict.fromkeys(why))}" if why else ""


def best(name: str, metric: str, best_score: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """The best row on one metric, and which of the others it is really ahead of."""
    text = f"On {LABELS[metric]} \u201c{name}\u201d is best with {best_score}."
    for line in lines:
        other = f"\u201c{line['other']}\u201d"
        if line["difference"] is None:
            text += f" {other} cannot be compared: its {LABELS[metric]} is undefined."
            continue
        verdict = "a real difference" if line["real"] else "not told apart on these test images"
        text += f" Ahead of {other} by {score(line['difference'], line['ci95'])}: {verdict}."
    return text


def against_none(name: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """Says whether a row is better or worse than random weights."""
    real = [line for line in lines if line["real"]]
    better, worse = ([x for x in real if (x["difference"] > 0) == up] for up in (True, False))
    if not real:
        gaps = " and ".join(_gap(line) for line in lines if line["difference"] is not None)
        tail = f" (difference: {gaps})" if gaps else ""
        return f"\u201c{name}\u201d is not shown to be better or worse than no pretraining{tail}."
    clauses = []
    if better:
        clauses.append("is better than no pretraining: " + " and ".join(_gap(line) for line in better))
    if worse:
        clauses.append("is worse than no pretraining: " + " and ".join(_gap(line) for line in worse))
    rest = [LABELS[line["metric"]] for line in lines if not line["real"]]
    tail = f"; not told apart on {' and '.join(rest)}" if rest else ""
    return f"\u201c{name}\u201d {'; it '.join(clauses)}{tail}."


def alarm(
    kind: str, step: int, other: int, rule: Alarm, difference: float | None, span: Sequence[float] | None
) -> str:
    """One alarm in words: what is worse than what, by how much, what to look at."""
    before = f"step {other:,}, the best before it"
    against = "its own starting weights" if kind == "worse_than_start" else before
    probe = {"linear": "linear probe", "knn": "nearest neighbours"}[rule.method]
    return (
        f"step {step:,} is worse than {against}: {probe}, {LABELS[rule.metric]} "
        f"{score(difference, span)}: look at the recipe (`retfound plan`) and at the loss before going on"
    )


def _gap(line: Mapping[str, Any]) -> str:
    sign = "+" if line["difference"] > 0 else ""
    return f"{LABELS[line['metric']]} {sign}{score(line['difference'], line['ci95'])}"


def _against_chance(value: float | None, span: Sequence[float] | None, classes: int) -> str:
    # One answer for every image finds all images of one class and none of the others.
    chance = 1 / classes
    if value is None or span is None or not math.isfinite(value):
        return ""
    if span[0] <= chance:
        return f"Guessing gives a balanced accuracy of {chance:.2f}: this cannot be told from guessing."
    return f"Guessing gives a balanced accuracy of {chance:.2f} and an AUROC of 0.50."
