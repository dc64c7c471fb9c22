"""The external test: a model fine-tuned on one set, tested on another through a map of classes.

The map has the model's classes on the left and the labels of the external set on the right:
{NO = "NORMAL", DME = "DME", AMD = ["CNV", "DRUSEN"]}. Images with other labels are left out and counted.
Probabilities of classes without a label are dropped. The rest is scaled to sum to 1. So the model is
scored only on the classes that the external set has.

Shapes: S seeds, N images, C the model's classes, M the mapped ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from retfound_dist.config.schema import EvalData, External, Task
from retfound_dist.errors import ConfigError, DataError
from retfound_dist.evaluate.data import labelled_set, set_loading
from retfound_dist.evaluate.data.label_subset import load_label_subset
from retfound_dist.evaluate.data.labelled_set import ExternalSet, LabelledSet, SplitPart
from retfound_dist.evaluate.data.set_layouts import list_labelled_images
from retfound_dist.evaluate.data.split_parts import unit_of
from retfound_dist.evaluate.data.subgroup_columns import check_subgroups, parse_subgroups, requested_columns
from retfound_dist.evaluate.pixels.gray_pixels import BICUBIC
from retfound_dist.evaluate.scores import bootstrap, metrics
from retfound_dist.evaluate.scores.bootstrap import ProgressCallback, UnitDraws
from retfound_dist.evaluate.scores.metrics import Floats, Labels
from retfound_dist.listing.unit_checks import check_set
from retfound_dist.listing.unit_names import IMAGE

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
    config: EvalData,
    external: External | None,
    image_size: int,
    on_progress: ProgressCallback | None = None,
    interpolation: str = BICUBIC,
    task: Task | None = None,
) -> LabelledSet:
    """The labelled set, with the external one where a path is given; ConfigError or DataError otherwise."""
    data = load_label_subset(config, image_size, on_progress, interpolation, task)
    if external is None or not external.path:
        return data
    other = load_external_set(external, data, config, image_size, on_progress, interpolation)
    return replace(data, external=other)


def load_external_set(
    config: External,
    data: LabelledSet,
    data_config: EvalData,
    image_size: int,
    on_progress: ProgressCallback | None = None,
    interpolation: str = BICUBIC,
) -> ExternalSet:
    """List, map and decode the external set.

    `data_config` has the budget for unreadable images, and says whether leaks are allowed.
    """
    subgroups = parse_subgroups(data_config.subgroups)
    columns = requested_columns(subgroups)
    listing = list_labelled_images(config.path, "external.path", data_config.follow_links, columns)
    check_subgroups(subgroups, listing.items, config.path)
    images_per_label = Counter(item.label for item in listing.items)
    class_map = check_class_map(config.class_map, data.classes, tuple(sorted(images_per_label)), config.path)
    classes = tuple(class_map)
    class_of_label = {label: i for i, name in enumerate(classes) for label in class_map[name]}
    # The part is set before decoding: test images are cropped to squares, train images stay larger.
    mapped = [replace(item, split="test") for item in listing.items if item.label in class_of_label]
    named = [replace(item, label=classes[class_of_label[item.label]]) for item in mapped]
    unit_notes = check_set(named, data.unit, f"external.path={config.path}", data_config.allow_leak)
    decoded, faults = set_loading.decode_all(mapped, image_size, on_progress, interpolation)
    skipped = (*listing.skipped, *faults)
    set_loading.check_budget(skipped, len(faults), len(mapped), config.path, data_config.bad_sample_budget)
    readable = [(item, image) for item, image in zip(mapped, decoded, strict=True) if image]
    # The test part does not count: the model learned from train, and its epoch was chosen on val.
    leaked = [item.key for item, image in readable if image.digest in data.train_val_digests]
    if leaked and not data_config.allow_leak:
        raise DataError(
            f"external.path={config.path}: {len(leaked)} images are also in the train or val part of "
            f"{data.path}, first {leaked[0]}. "
            "Remove them, or override with --allow-leak (data.allow_leak=true)"
        )
    return ExternalSet(
        path=config.path,
        class_map=class_map,
        own_labels=tuple(item.label for item, _ in readable),
        part=SplitPart(
            keys=tuple(item.key for item, _ in readable),
            labels=np.array([class_of_label[item.label] for item, _ in readable], dtype=np.int64),
            patients=tuple(item.patient for item, _ in readable),
            images=tuple(image.pixels for _, image in readable),
            digests=tuple(image.digests for _, image in readable),
            units=tuple(unit_of(item, data_config.unknown_patient) for item, _ in readable),
            descriptions=tuple(labelled_set.describe_image(item) for item, _ in readable),
        ),
        unmapped_counts={
            label: count for label, count in sorted(images_per_label.items()) if label not in class_of_label
        },
        skipped=skipped,
        notes=(*listing.notes, *unit_notes),
        columns=listing.columns,
        leaked_images=len(leaked),
        fingerprint=set_loading.fingerprint(
            [item for item, _ in readable], [image for _, image in readable], data.unit
        ),
    )


def check_class_map(
    class_map: Mapping[str, str | Sequence[str]], classes: Sequence[str], labels: Sequence[str], where: str
) -> dict[str, tuple[str, ...]]:
    """The map in the order of the model's classes, each with its labels; ConfigError where it does not fit.

    An empty map maps each class to the label of the same name. `where`: path of the external set.
    """
    class_map = class_map or {name: name for name in classes if name in labels}
    mapping = {name: (to,) if isinstance(to, str) else tuple(to) for name, to in class_map.items()}
    unknown = [name for name in mapping if name not in classes]
    if unknown:
        raise ConfigError(
            f"external.class_map names {', '.join(unknown)}, but the model has no such class: "
            f"the left side must be one of {', '.join(classes)}"
        )
    mapped_labels = Counter(label for targets in mapping.values() for label in targets)
    missing = [label for label in mapped_labels if label not in labels]
    if missing:
        raise ConfigError(
            f"external.class_map maps to {', '.join(missing)}, but external.path={where} has no such label: "
            f"use its labels {', '.join(labels)}"
        )
    repeated = [label for label, count in mapped_labels.items() if count > 1]
    if repeated:
        raise ConfigError(
            f"external.class_map maps to {', '.join(repeated)} more than once: "
            "choose one class for each label"
        )
    if sum(1 for targets in mapping.values() if targets) < 2:
        raise ConfigError(
            f"external.class_map maps fewer than two of the classes {', '.join(classes)} to the labels "
            f"{', '.join(labels)}: map at least two"
        )
    return {name: mapping[name] for name in classes if mapping.get(name)}


def renormalise(probabilities_NC: Floats, classes: Sequence[str], mapped_classes: Sequence[str]) -> Floats:
    """(N, M): probabilities of the mapped classes, scaled to sum to 1; equal shares where all are 0."""
    kept_NM = probabilities_NC[:, [list(classes).index(name) for name in mapped_classes]]
    total_N1 = kept_NM.sum(1, keepdims=True)
    # In fp32 a softmax gives exactly 0 to very unlikely classes. All mapped classes may be among them.
    return np.where(total_N1 > 0, kept_NM / np.where(total_N1 > 0, total_N1, 1), 1 / len(mapped_classes))


def mapped_mean(drawn_SNC: Floats, classes: Sequence[str], mapped_classes: Sequence[str]) -> Floats:
    """(N, M): mean probabilities of the mapped classes, of some seeds."""
    # Rounded, so that external_predictions.csv gives exactly the same scores again.
    return renormalise(bootstrap.mean_probabilities(drawn_SNC), classes, mapped_classes).round(metrics.DIGITS)


def score(
    external_set: ExternalSet, probabilities_SNC: Floats, classes: Sequence[str], draws: UnitDraws
) -> ExternalTest:
    """Scores and intervals of the mapped classes. `draws`: the resamples of the external set."""
    part, mapped_classes = external_set.part, tuple(external_set.class_map)
    combine = partial(mapped_mean, classes=classes, mapped_classes=mapped_classes)
    probabilities_NM = combine(probabilities_SNC)
    resampled = bootstrap.scores_over_seeds(part.labels, probabilities_SNC, draws.weights_RN, combine)
    tree = {
        **metrics.evaluate(part.labels, probabilities_NM, mapped_classes),
        "ci95": bootstrap.intervals(resampled),
        "bootstrap": {
            "unit": draws.unit,
            "units": int(draws.units_N.max()) + 1,
            "resamples": len(draws.weights_RN),
        },
        "classes": list(mapped_classes),
        **describe(external_set, classes),
    }
    return ExternalTest(
        tree, part.keys, part.patients, external_set.own_labels, part.labels, probabilities_NM
    )


def describe(external_set: ExternalSet, classes: Sequence[str]) -> dict[str, Any]:
    """What is tested and what is left out, for metrics.json and `wording.describe_external`."""
    return {
        "class_map": {name: list(to) for name, to in external_set.class_map.items()},
        "dropped_classes": [name for name in classes if name not in external_set.class_map],
        "images": len(external_set.part),
        **(
            {}
            if external_set.unit == IMAGE
            else {"unit": external_set.unit, "of_images": external_set.images}
        ),
        "patients": labelled_set.count_patients(external_set.part.patients),
        "left_out": dict(external_set.unmapped_counts),
        "skipped": [{"key": key, "reason": reason} for key, reason in external_set.skipped],
        "notes": list(external_set.notes),
        "warnings": [f"{external_set.leaked_images} images are also in the train or val part"]
        if external_set.leaked_images
        else [],
        "data": {
            "path": external_set.path,
            "fingerprint": external_set.fingerprint,
            "columns": external_set.columns,
        },
    }
