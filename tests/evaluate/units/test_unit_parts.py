"""A part of eyes has what a part of images has, one entry for each eye."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retfound_dist.config.schema import EvalData
from retfound_dist.evaluate.data.external_validation import describe
from retfound_dist.evaluate.data.labelled_set import ExternalSet, LabelledSet
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.units.unit_parts import count_parts, mean_features, part_of_units, scored_set
from tests.evaluate.volumes import eye_volumes


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> LabelledSet:
    """Twelve patients, 24 eyes, 72 slices."""
    folder = eye_volumes(tmp_path_factory.mktemp("units") / "set")
    return load_labelled_set(EvalData(path=str(folder), unit="eye"), 28)


def test_every_eye_has_its_label_patient_and_split_unit(eyes: LabelledSet) -> None:
    images, units = eyes.parts["test"], part_of_units(eyes.parts["test"], "eye")
    assert len(images) == 3 * len(units) > 0
    assert list(units.keys) == sorted({f"{key[:3]} {key[4]}" for key in images.keys})
    for key, patient, label, unit in zip(units.keys, units.patients, units.labels, units.units, strict=True):
        assert key.startswith(f"{patient} ")
        assert eyes.classes[label] == ("CSR", "NORMAL")[int(key[1:3]) % 2]
        assert unit == ("patient", patient)
    assert all(len(digests) >= 3 for digests in units.digests)


def test_only_what_is_scored_becomes_eyes_and_a_set_of_images_stays_the_same_object(
    eyes: LabelledSet, tmp_path: Path
) -> None:
    scored = scored_set(eyes)
    assert scored.parts["train"] is eyes.parts["train"]
    assert len(scored.parts["val"]) * 3 == len(eyes.parts["val"])
    single = load_labelled_set(EvalData(path=str(eye_volumes(tmp_path / "set"))), 28)
    assert scored_set(single) is single
    assert count_parts(single) == single.counts()


def test_an_external_set_of_eyes_counts_eyes_and_their_images(eyes: LabelledSet) -> None:
    part = eyes.parts["test"]
    labels = tuple(eyes.classes[label] for label in part.labels)
    class_map = {name: (name,) for name in eyes.classes}
    external = ExternalSet("other", class_map, part, labels, {}, (), (), 0, "")
    assert "unit" not in describe(external, eyes.classes)
    scored = scored_set(replace(eyes, external=external)).external
    assert scored is not None
    tree = describe(scored, eyes.classes)
    assert (tree["images"], tree["unit"], tree["of_images"]) == (len(part) / 3, "eye", len(part))


def test_the_shown_image_of_an_eye_can_be_chosen(eyes: LabelledSet) -> None:
    part = eyes.parts["test"]
    last = np.array([images[-1] for images in part.index("eye").images_of_units])
    shown = part_of_units(part, "eye", last)
    assert all(np.array_equal(shown.images[u], part.images[i]) for u, i in enumerate(last))


def test_counts_are_of_eyes_with_the_images_beside_them(eyes: LabelledSet) -> None:
    counts = count_parts(eyes)
    assert counts["unit"] == "eye"
    assert sum(counts[part] for part in ("train", "val", "test")) == 24
    assert sum(counts["images"].values()) == 72
    assert sum(sum(counts["per_class"][part].values()) for part in ("train", "val", "test")) == 24


def test_features_of_an_eye_are_the_mean_of_its_slices(eyes: LabelledSet) -> None:
    part = eyes.parts["test"]
    features_ND = np.arange(len(part), dtype=np.float32)[:, None]
    means = mean_features(features_ND, eyes)
    assert means.shape == (len(part) // 3, 1)
    assert means[0, 0] == np.mean(part.index("eye").images_of_units[0])


def test_another_unit_is_another_set_and_images_keep_their_fingerprint(tmp_path: Path) -> None:
    folder = str(eye_volumes(tmp_path / "set"))
    prints = [
        load_labelled_set(EvalData(path=folder, unit=u), 28).fingerprint for u in ("image", "eye", "volume")
    ]
    assert len(set(prints)) == 3
