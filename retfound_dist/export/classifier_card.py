"""The card beside an exported classifier: use, classes, data, scores, preparation, licence, how to load it.

It is made from classifier.json alone, and names no path of the computer that trained it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from retfound_dist.config.schema import MULTICLASS
from retfound_dist.estimate.model_shapes import TEST_RESIZE
from retfound_dist.evaluate.classifier.classifier_file import ClassifierFile
from retfound_dist.evaluate.tasks.task_facts import SCORE_LABELS, SCORES
from retfound_dist.export.output_words import output_words
from retfound_dist.files.untrusted_text import code, markdown
from retfound_dist.io import storage
from retfound_dist.model.weights.licences import NON_COMMERCIAL
from retfound_dist.runs.model_card import interval_text, score_rows

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class CardFacts:
    """The values that a card shows."""

    name: str
    """Name of the exported file or folder."""
    kind: str
    """The format."""
    classifier: ClassifierFile
    seeds: tuple[int, ...]
    """Whose networks are in the export."""
    family: str
    """Name of the network's architecture."""
    timm_arguments: Mapping[str, Any]
    """`architecture` and the arguments of `timm.create_model`; empty for a graph."""


def make_classifier_card(facts: CardFacts) -> str:
    """The card as Markdown, with a head for model hubs."""
    loader = PackageLoader("retfound_dist.export", ".")
    templates = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    templates.filters.update(words=markdown, code=code)
    classifier, start = facts.classifier, facts.classifier.starting_weights
    arguments = dict(facts.timm_arguments)
    text = templates.get_template("classifier_card.md.j2").render(
        facts=facts,
        classifier=classifier,
        words=output_words(classifier),
        is_graph=not arguments,
        load_line=_load_line(arguments),
        start_name=_weights_name(start),
        non_commercial=start.get("licence") == NON_COMMERCIAL,
        licence=licence_text(start),
        preparation=preparation_text(classifier.image_size, str(classifier.normalisation["interpolation"])),
        mean=_numbers(classifier.normalisation["mean"]),
        std=_numbers(classifier.normalisation["std"]),
        unit=classifier.unit["kind"],
        data_columns=_data_columns(classifier),
        data_rows=_data_rows(classifier),
        scores=_score_rows(classifier),
        thresholds=_threshold_rows(classifier.thresholds),
    )
    return f"{text}\n"


def preparation_text(side: int, interpolation: str) -> str:
    """How an image file becomes the input, in words."""
    return (
        f"gray, 8 bit; resized with {interpolation} interpolation and antialiasing so that the shorter side "
        f"has {round(side * TEST_RESIZE)} pixels; the centre of {side} x {side} pixels cut out"
    )


def licence_text(start: Mapping[str, Any]) -> str:
    """The licence of the starting weights, which holds for everything trained from them."""
    licence, owner = str(start.get("licence", "")), str(start.get("owner", ""))
    if licence == "none":
        return "trained from random weights: the terms of the images apply, and no terms of starting weights"
    if licence == NON_COMMERCIAL:
        return f"{licence}, not for commercial use: trained from {owner} published weights"
    if licence:
        return f"{licence}: trained from {owner} published weights"
    return f"not known: find out the licence of the starting weights, {_weights_name(start)}"


def _weights_name(start: Mapping[str, Any]) -> str:
    """A name without a folder: a path may name a person or a clinic."""
    url = str(start.get("url", "")) or "not known"
    return url if url.startswith(("hf:", "timm:")) and "@" not in url else storage.name(url)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _load_line(arguments: dict[str, Any]) -> str:
    """The call of timm that builds the network."""
    if not arguments:
        return ""
    name = arguments.pop("architecture")
    return f"timm.create_model({name!r}, {', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def _counted_kinds(kept: ClassifierFile) -> list[str]:
    """`eyes`, `images`, `patients`: what is scored first, and counted once."""
    return list(dict.fromkeys([f"{kept.unit['kind']}s", "images", "patients"]))


def _data_columns(kept: ClassifierFile) -> list[str]:
    """The titles of `_data_rows`, as Markdown."""
    return [*_counted_kinds(kept), *map(markdown, _counted(kept))]


def _data_rows(kept: ClassifierFile) -> list[tuple[str, list[str]]]:
    """Part, then the numbers of each kind and of each class; `not known` where nobody counted."""
    split = kept.data.get("split", {})
    counts = {
        # By name: a set of images has no `images` beside them, and patients may be what is scored.
        "images": split.get("images") or {},
        "patients": split.get("patients") or {},
        f"{kept.unit['kind']}s": split,
    }
    rows = []
    for part in PARTS:
        per_class = split.get("per_class", {}).get(part) or {}
        cells = [counts[kind].get(part) for kind in _counted_kinds(kept)]
        cells += [per_class.get(name) for name in _counted(kept)]
        rows.append((part, ["not known" if cell is None else f"{cell:,}" for cell in cells]))
    return rows


def _counted(kept: ClassifierFile) -> list[str]:
    """The classes whose images are counted. Counts of other tasks are of the groups of the split."""
    return kept.classes if kept.task["kind"] == MULTICLASS else []


def _score_rows(kept: ClassifierFile) -> list[tuple[str, str, str]]:
    """Name, value and interval of each score."""
    if kept.task["kind"] == MULTICLASS:
        return score_rows({"macro": kept.scores["macro"], "ci95": {"macro": kept.scores["ci95"]}})
    values, spans = kept.scores["macro"], kept.scores["ci95"]
    return [
        (SCORE_LABELS[name], f"{values[name]:.3f}", interval_text(spans.get(name)))
        for name in SCORES[kept.task["kind"]]
        if values.get(name) is not None
    ]


def _threshold_rows(thresholds: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of each stored threshold as Markdown, also where they are grouped."""
    rows = []
    for name, value in thresholds.items():
        if isinstance(value, Mapping) and "points" in value:
            rows += [_point_row(name, point) for point in value["points"]]
        elif isinstance(value, Mapping) and "threshold" in value:
            rows.append((markdown(name), _label_threshold(value)))
        elif isinstance(value, Mapping):
            rows += [(f"{markdown(name)}, {inner}", text) for inner, text in _threshold_rows(value)]
        else:
            text = f"{value:.4g}" if isinstance(value, float) else markdown(value)
            rows.append((markdown(name), text))
    return rows


def _point_row(question: str, point: Mapping[str, Any]) -> tuple[str, str]:
    """An operating point of a question, as `clinical_entries.kept_thresholds` stores it."""
    target = f"{point['target']['rate']} {100 * point['target']['level']:.4g} %"
    value = point["threshold"]
    text = f"none: {markdown(str(point['reason']))}" if value is None else f"{value:.4g}"
    return f"{markdown(question)}, {target}", text


def _label_threshold(chosen: Mapping[str, Any]) -> str:
    """The threshold of a label, as `label_thresholds.choose_thresholds` gives it."""
    value = f"{chosen['threshold']:.4g}"
    return f"{value} ({markdown(chosen['reason'])})" if chosen.get("reason") else value
