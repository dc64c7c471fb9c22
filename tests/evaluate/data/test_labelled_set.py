"""What a labelled set says of itself: counts for metrics.json, and the units of a part's images."""

from __future__ import annotations

import json

import numpy as np

from retfound_dist.evaluate.data.labelled_set import (
    ImageDescription,
    LabelledSet,
    SplitPart,
    count_patients,
)


def part(labels: list[int], patients: list[str | None], eyes: str = "") -> SplitPart:
    keys = tuple(f"{i}.png" for i in range(len(labels)))
    described = tuple(ImageDescription(volume="v", eye=eye) for eye in eyes)
    return SplitPart(keys, np.array(labels, np.int64), tuple(patients), (), descriptions=described)


def test_counts_are_of_images_patients_and_classes_of_each_part() -> None:
    parts = {"train": part([0, 0, 1], ["a", "a", "b"]), "val": part([], []), "test": part([1], [None])}
    data = LabelledSet("set", ("A", "B"), parts, "patient", (), (), (), "f", unit_counts={"patient": 3})
    counts = data.counts()
    assert (counts["train"], counts["val"], counts["test"]) == (3, 0, 1)
    assert counts["patients"] == {"train": 2, "val": 0, "test": None}
    assert counts["per_class"]["train"] == {"A": 2, "B": 1}
    assert counts["known_by"] == {"patient": 3}
    json.dumps(counts)  # numpy's integers would raise


def test_patients_are_counted_only_where_every_image_names_one() -> None:
    assert count_patients(["a", "b", "a"]) == 2
    assert count_patients(["a", None]) is None


def test_images_of_one_patient_are_of_two_eyes() -> None:
    index = part([0, 0, 0], ["a", "a", "a"], "LRL").index("eye")
    assert index.names == ("a L", "a R")
    assert index.unit_of_image_N.tolist() == [0, 1, 0]
    alone = part([0, 0], ["a", "a"]).index("eye")
    assert [kind for kind, _ in alone.fallbacks] == ["image", "image"]
