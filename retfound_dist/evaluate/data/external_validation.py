"""The external test: a model fine-tuned on one set, tested on another through a map of classes.

Left in the map stand the model's classes, right the labels of the external set:
{NO = "NORMAL", DME = "DME", AMD = ["CNV", "DRUSEN"]}. Images of labels that are not mapped are left out
and counted. Probabilities of classes that map to nothing are dropped, the rest is scaled to sum to 1:
the model is asked only to tell apart what the external set holds.

Shapes: S seeds, N images, C the model's classes, M the mapped ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from retfound_dist.config.schema import EvalData, External
from retfound_dist.errors import ConfigError, DataError
from retfound_dist.evaluate.data import labelled_set
from retfound_dist.evaluate.data.label_subset import load_share
from retfound_dist.evaluate.data.labelled_set import ExternalSet, LabelledSet, SplitPart, Tick
from retfound_dist.evaluate.data.set_layouts import list_items
from retfound_dist.evaluate.data.split_parts import unit_of
from retfound_dist.evaluate.scores import bootstrap, metrics
from retfound_dist.evaluate.scores.metrics import Floats, Labels

ClassMap = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class ExternalTest:
    """A model's predictions for the external set, with their scores."""

    metrics: dict[str, Any]
    """`external` in metrics.json."""
    keys: tuple[str, ...]
    patients: tuple[str | None, ...]
    own_labels: tuple[str, ...]
    """Each image's label in the external set."""
    labels_N: Labels
    """Indices into `metrics["classes"]`."""
    probabilities_NM: Floats


def load_with_external(
    config: EvalData, external: External | None, image_size: int, tick: Tick | None = None
) -> LabelledSet:
    """The labelled set, with the external one where a path is given; ConfigError or DataError otherwise."""
    data = load_share(config, image_size, tick)
    if external is None or not external.path:
        return data
    return replace(data, external=load(external, data, config, image_size, tick))


def load(
    config: External, data: LabelledSet, rules: EvalData, image_size: int, tick: Tick | None = None
) -> ExternalSet:
    """List, map and decode the external set.

    `rules` gives the budget for unreadable images and says whether leaks are allowed.
    """
    listing = list_items(config.path, "external.path", rules.follow_links)
    images_per_label = Counter(item.label for item in listing.items)
    class_map = check_class_map(config.class_map, data.classes, tuple(sorted(images_per_label)), config.path)
    classes = tuple(class_map)
    place = {label: i for i, name in enumerate(classes) for label in class_map[name]}
    # Decoding cuts test images to squares and leaves train images larger, so the part comes first.
    wanted = [replace(item, split="test") for item in listing.items if item.label in place]
    decoded, faults = labelled_set.decode_all(wanted, image_size, tick)
    skipped = (*listing.skipped, *faults)
    labelled_set.check_budget(skipped, len(faults), len(wanted), config.path, rules.bad_sample_budget)
    whole = [(item, image) for item, image in zip(wanted, decoded, strict=True) if image]
    # Only train and val count: the model learned from the one, and its epoch was chosen by the other.
    seen = [item.key for item, image in whole if image.digest in data.seen]
    if seen and not rules.allow_leak:
        raise DataError(
            f"external.path={config.path}: {len(seen)} images are in the train or val part of {data.path} "
            f"too, first {seen[0]}: take them out, or insist with --allow-leak (data.allow_leak=true)"
        )
    return ExternalSet(
        path=config.path,
        class_map=class_map,
        own_labels=tuple(item.label for item, *_ in whole),
        part=SplitPart(
            keys=tuple(item.key for item, *_ in whole),
            labels=np.array([place[item.label] for item, *_ in whole], dtype=np.int64),
            patients=tuple(item.patient for item, *_ in whole),
            images=tuple(image.pixels for _, image in whole),
            digests=tuple(image.digests for _, image in whole),
            units=tuple(unit_of(item, rules.unknown_patient) for item, _ in whole),
        ),
        left_out={label: count for label, count in sorted(images_per_label.items()) if label not in place},
        skipped=skipped,
        notes=listing.notes,
        columns=listing.columns,
        seen=len(seen),
        fingerprint=labelled_set.fingerprint([item for item, _ in whole], [image for _, image in whole]),
    )


def check_class_map(
    class_map: Mapping[str, str | Sequence[str]], classes: Sequence[str], labels: Sequence[str], where: str
) -> dict[str, tuple[str, ...]]:
    """The map in the order of the model's classes, each with its labels; ConfigError for what does not fit.

    An empty map stands for the labels that bear the name of a class.
    """
    wanted = class_map or {name: name for name in classes if name in labels}
    full = {name: (to,) if isinstance(to, str) else tuple(to) for name, to in wanted.items()}
    unknown = [name for name in full if name not in classes]
    if unknown:
        raise ConfigError(
            f"external.class_map names {', '.join(unknown)}, which the model has no class for: "
            f"on the left stands one of {', '.join(classes)}"
        )
    targets = Counter(label for to in full.values() for label in to)
    strange = [label for label in targets if label not in labels]
    if strange:
        raise ConfigError(
            f"external.class_map leads to {', '.join(strange)}, which external.path={where} does not hold: "
            f"its labels are {', '.join(labels)}"
        )
    twice = [label for label, count in targets.items() if count > 1]
    if twice:
        raise ConfigError(f"external.class_map leads to {', '.join(twice)} more than once: choose one class")
    if sum(1 for to in full.values() if to) < 2:
        raise ConfigError(
            f"external.class_map maps fewer than two classes between {', '.join(classes)} and "
            f"{', '.join(labels)}: there is nothing to tell apart"
        )
    return {name: full[name] for name in classes if full.get(name)}


def renormalise(probabilities_NC: Floats, classes: Sequence[str], mapped_classes: Sequence[str]) -> Floats:
    """(N, M): probabilities of the mapped classes, scaled to sum to 1; equal shares where all are 0."""
    kept_NM = probabilities_NC[:, [list(classes).index(name) for name in mapped_classes]]
    total_N1 = kept_NM.sum(1, keepdims=True)
    # A softmax in fp32 gives exact zeros to classes that are far behind; all mapped ones may be such.
    return np.where(total_N1 > 0, kept_NM / np.where(total_N1 > 0, total_N1, 1), 1 / len(mapped_classes))


def score(
    external_set: ExternalSet, seeds_SNC: Floats, classes: Sequence[str], resamples: int, digits: int
) -> ExternalTest:
    """Scores and intervals of the mapped classes, from probabilities rounded to so many digits."""
    part, mapped_classes = external_set.part, tuple(external_set.class_map)

    def together(some_SNC: Floats) -> Floats:
        """(N, M): the mean over the seeds, of the mapped classes alone."""
        # Rounded first, so that external_predictions.csv gives exactly the same scores again.
        return renormalise(bootstrap.mean_of(some_SNC), classes, mapped_classes).round(digits)

    p_NM = together(seeds_SNC)
    unit, units_N = bootstrap.units_of(part.patients, part.keys, part.units)
    weights_RN = bootstrap.resample(units_N, resamples, 0)
    drawn = bootstrap.over_seeds(part.labels, seeds_SNC, weights_RN, together)
    tree = {
        **metrics.evaluate(part.labels, p_NM, mapped_classes),
        "ci95": bootstrap.intervals(drawn),
        "bootstrap": {"unit": unit, "units": int(units_N.max()) + 1, "resamples": resamples},
        "classes": list(mapped_classes),
        **describe(external_set, classes),
    }
    return ExternalTest(tree, part.keys, part.patients, external_set.own_labels, part.labels, p_NM)


def describe(external_set: ExternalSet, classes: Sequence[str]) -> dict[str, Any]:
    """Says what is tested and what is left out: for metrics.json and `wording.external`."""
    return {
        "class_map": {name: list(to) for name, to in external_set.class_map.items()},
        "dropped_classes": [name for name in classes if name not in external_set.class_map],
        "images": len(external_set.part),
        "patients": labelled_set.count_patients(external_set.part.patients),
        "left_out": dict(external_set.left_out),
        "skipped": [{"key": key, "reason": reason} for key, reason in external_set.skipped],
        "notes": list(external_set.notes),
        "warnings": [f"{external_set.seen} images are in the train or val part too"]
        if external_set.seen
        else [],
        "data": {
            "path": external_set.path,
            "fingerprint": external_set.fingerprint,
            "columns": external_set.columns,
        },
    }
