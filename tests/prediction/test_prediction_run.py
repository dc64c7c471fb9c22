"""Images are predicted once: finished parts are used again, unless image or classifier has changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retfound_dist.errors import DataError
from retfound_dist.evaluate.classifier import classifier_file
from retfound_dist.evaluate.classifier.classifier import Classifier, load_classifier
from retfound_dist.prediction import prediction_run
from retfound_dist.prediction.input_sources import list_inputs
from retfound_dist.prediction.prediction_parts import PartFolder
from retfound_dist.prediction.prediction_run import (
    Budget,
    ImagePredictions,
    predict_images,
    prediction_identity,
)
from tests.evaluate.inputs import class_folders, image_bytes, list_patients


def predicted(kept: Path, images: Path, out: Path, budget: int = 10) -> ImagePredictions:
    url = classifier_file.resolve(str(kept / "out"))
    facts = classifier_file.read(url)
    parts = PartFolder(str(out), prediction_identity(facts))

    def load() -> Classifier:
        return load_classifier(url)

    rows = list_inputs([str(images)]).images
    return predict_images(load, facts, rows, parts, budget=Budget(budget, str(images)))


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_run, "PART_IMAGES", 8)


def test_only_parts_with_changed_images_are_predicted_again(kept: Path, tmp_path: Path) -> None:
    images = class_folders(tmp_path / "set", each=10)
    batch = classifier_file.read(str(kept / "out/classifier")).batch
    first = predicted(kept, images, tmp_path / "p.csv")
    assert first.computed == 30
    again = predicted(kept, images, tmp_path / "p.csv")
    assert again.computed == 0
    np.testing.assert_array_equal(again.probabilities_SNC, first.probabilities_SNC)
    assert again.facts == first.facts
    (images / "CSR/CSR_1.jpg").write_bytes(image_bytes(2, 77))
    changed = predicted(kept, images, tmp_path / "p.csv")
    assert changed.computed == batch
    different = (changed.probabilities_SNC != first.probabilities_SNC).any(axis=(0, 2))
    assert np.flatnonzero(different).tolist() == [1]


def test_a_list_that_was_corrected_gives_its_facts_to_finished_parts(kept: Path, tmp_path: Path) -> None:
    images = class_folders(tmp_path / "set", each=10)
    list_patients(images)
    first = predicted(kept, images, tmp_path / "p.csv")
    list_patients(images, images_each=5)
    again = predicted(kept, images, tmp_path / "p.csv")
    assert again.computed == 0
    assert {fact.patient for fact in first.facts} > {fact.patient for fact in again.facts}
    assert [fact.patient for fact in again.facts[:6]] == ["CSR0"] * 5 + ["CSR1"]


def test_unreadable_images_are_nan_and_over_the_budget_an_error(kept: Path, tmp_path: Path) -> None:
    images = class_folders(tmp_path / "set", each=2)
    for name in ("CSR/CSR_0.jpg", "NORMAL/NORMAL_1.jpg"):
        (images / name).write_bytes(b"x")
    result = predicted(kept, images, tmp_path / "p.csv", budget=2)
    bad = np.isnan(result.probabilities_SNC).all(axis=(0, 2))
    assert bad.tolist() == [bool(reason) for reason in result.reasons]
    assert np.flatnonzero(bad).tolist() == [0, 5]
    with pytest.raises(DataError, match=r"2 images of .* more than --bad-sample-budget 1 \(CSR/CSR_0.jpg: "):
        predicted(kept, images, tmp_path / "q.csv", budget=1)


def test_a_repaired_image_is_predicted(kept: Path, tmp_path: Path) -> None:
    images = class_folders(tmp_path / "set", each=1)
    data = (images / "MH/MH_0.jpg").read_bytes()
    (images / "MH/MH_0.jpg").write_bytes(data[:200])
    assert predicted(kept, images, tmp_path / "p.csv").reasons[1]
    (images / "MH/MH_0.jpg").write_bytes(data)
    repaired = predicted(kept, images, tmp_path / "p.csv")
    assert repaired.reasons == [""] * 3
    assert not np.isnan(repaired.probabilities_SNC).any()


def test_none_readable_is_an_error(kept: Path, tmp_path: Path) -> None:
    images = class_folders(tmp_path / "set", each=1)
    for path in images.rglob("*.jpg"):
        path.write_bytes(b"x")
    with pytest.raises(DataError, match=r"none of the 3 images of .* can be read"):
        predicted(kept, images, tmp_path / "p.csv")
