"""The tables of an evaluation as CSV: predictions, seeds, probes, slices, the split."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from retfound_dist.evaluate.data.external_validation import ExternalTest
from retfound_dist.evaluate.data.labelled_set import LabelledSet, SplitPart
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.scores.metrics import DIGITS, Floats


def predictions_csv(evaluation: Evaluation) -> str:
    """The test part, one line for each image."""
    images = zip(
        evaluation.keys,
        evaluation.patients,
        evaluation.labels_N,
        evaluation.probabilities_NC,
        strict=True,
    )
    return _labelled_csv(images, evaluation.classes)


def val_csv(evaluation: Evaluation, val: SplitPart) -> str:
    """The val part, one line for each image."""
    assert evaluation.val_probabilities_NC is not None
    images = zip(val.keys, val.patients, val.labels, evaluation.val_probabilities_NC, strict=True)
    return _labelled_csv(images, evaluation.classes)


def _labelled_csv(images: Iterable[tuple[str, str | None, int, Floats]], classes: Sequence[str]) -> str:
    rows = [
        [key, patient or "", classes[label], classes[int(p_C.argmax())], *(f"{p:.{DIGITS}f}" for p in p_C)]
        for key, patient, label, p_C in images
    ]
    return _csv_text(["key", "patient", "label", "predicted", *(f"p_{c}" for c in classes)], rows)


def seeds_csv(evaluation: Evaluation) -> str:
    """The test part, one line for each seed and image."""
    by_seed = zip(evaluation.metrics["seeds"], evaluation.seed_probabilities_SNC, strict=True)
    rows = [
        [str(seed), key, *(f"{p:.{DIGITS}f}" for p in p_C)]
        for seed, p_NC in by_seed
        for key, p_C in zip(evaluation.keys, p_NC, strict=True)
    ]
    return _csv_text(["seed", "key", *(f"p_{c}" for c in evaluation.classes)], rows)


def probes_csv(evaluation: Evaluation) -> str:
    """The test part, one line for each probe and image."""
    rows = [
        [probe, key, *(f"{p:.{DIGITS}f}" for p in p_C)]
        for probe, p_NC in evaluation.probe_probabilities.items()
        for key, p_C in zip(evaluation.keys, p_NC, strict=True)
    ]
    return _csv_text(["probe", "key", *(f"p_{c}" for c in evaluation.classes)], rows)


def slices_csv(evaluation: Evaluation, data: LabelledSet) -> str:
    """The images of the test part, one line for each. `attention`: empty where all count alike."""
    assert evaluation.slices is not None
    test, slices = data.parts["test"], evaluation.slices
    index = test.index(data.unit)
    weights_N = [None] * len(test) if slices.weights_N is None else slices.weights_N
    rows = [
        [key, index.names[unit], "" if weight is None else f"{weight:.{DIGITS}f}"]
        + [f"{p:.{DIGITS}f}" for p in p_C]
        for key, unit, weight, p_C in zip(
            test.keys, index.unit_of_image_N, weights_N, slices.probabilities_NC, strict=True
        )
    ]
    return _csv_text(["key", data.unit, "attention", *(f"p_{c}" for c in evaluation.classes)], rows)


def external_csv(external_test: ExternalTest) -> str:
    """The external set, one line for each image. `label`: the class of the model it is mapped to."""
    classes = external_test.metrics["classes"]
    images = zip(
        external_test.keys,
        external_test.patients,
        external_test.labels_N,
        external_test.own_labels,
        external_test.probabilities_NM,
        strict=True,
    )
    rows = [
        [key, patient or "", classes[label], own_label, classes[int(p_M.argmax())]]
        + [f"{p:.{DIGITS}f}" for p in p_M]
        for key, patient, label, own_label, p_M in images
    ]
    columns = ["key", "patient", "label", "external_label", "predicted"]
    return _csv_text([*columns, *(f"p_{c}" for c in classes)], rows)


def split_csv(data: LabelledSet) -> str:
    """The part of each image, one line for each image."""
    rows = [
        [key, patient or "", data.classes[label], name]
        for name, part in data.parts.items()
        for key, patient, label in zip(part.keys, part.patients, part.labels, strict=True)
    ]
    return _csv_text(["key", "patient", "label", "part"], rows)


def _csv_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
