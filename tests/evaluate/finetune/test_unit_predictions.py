"""Eyes are scored in place of slices: in every file of an evaluation, by the mean and by attention."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retfound_dist.config.schema import EvalData, EvalModel, Finetune
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.data.starting_weights import open_starting_weights
from retfound_dist.evaluate.finetune import finetuning
from retfound_dist.evaluate.finetune.finetuning import finetune
from retfound_dist.evaluate.finetune.unit_predictions import head_inputs, uses_attention
from retfound_dist.evaluate.units.slice_pooling import mean_of_logits
from retfound_dist.listing.unit_names import NamedImage, index_units
from tests.browser import assert_fits
from tests.evaluate.made import evaluated
from tests.evaluate.volumes import eye_volumes


def rows_of(file: Path) -> list[dict[str, str]]:
    """A CSV's rows."""
    with file.open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module", params=["mean", "attention"])
def evaluation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of 24 eyes by two seeds."""
    root = tmp_path_factory.mktemp(request.param)
    eye_volumes(root / "set")
    return evaluated(root, "none", "data.unit=eye", f"finetune.pool={request.param}", "seeds=[0, 1]")


def test_files_have_a_row_for_each_eye_and_slices_have_their_own(evaluation: Path) -> None:
    tree = json.loads((evaluation / "metrics.json").read_text())
    eyes = rows_of(evaluation / "predictions.csv")
    assert [row["key"] for row in eyes] == sorted({f"{row['patient']} {s}" for row in eyes for s in "LR"})
    assert len(eyes) == tree["split"]["test"] == tree["bootstrap"]["units"] * 2
    assert tree["bootstrap"]["unit"] == "patient"
    slices = rows_of(evaluation / "slice_predictions.csv")
    assert len(slices) == 3 * len(eyes) == tree["split"]["images"]["test"]
    assert {row["eye"] for row in slices} == {row["key"] for row in eyes}
    assert len(rows_of(evaluation / "val_predictions.csv")) == tree["split"]["val"]
    assert len(rows_of(evaluation / "probe_test_predictions.csv")) == 2 * len(eyes)
    assert sum(map(sum, tree["confusion"])) == len(eyes)
    pictures = json.loads((evaluation / "pictures.json").read_text())
    assert len(pictures["features"]["points"]) == len(eyes)
    # A split file is of images, whatever is scored.
    assert len(rows_of(evaluation / "split.csv")) == 72


@pytest.mark.cluster
def test_the_page_opens_on_a_phone_and_on_a_desk_without_complaint(evaluation: Path, tmp_path: Path) -> None:
    assert_fits(evaluation / "report.html", tmp_path, images=0)


def test_the_page_speaks_of_eyes(evaluation: Path) -> None:
    page = (evaluation / "report.html").read_text()
    tested = json.loads((evaluation / "metrics.json").read_text())["split"]
    assert f"{tested['test']} test eyes ({tested['images']['test']} images)" in page
    assert "test images" not in page.replace("Test images with a wrong", "").replace(
        "of these test images", ""
    )


def test_an_eye_is_the_mean_of_its_slices_or_their_attention_sums_to_1(evaluation: Path) -> None:
    tree = json.loads((evaluation / "metrics.json").read_text())
    slices = rows_of(evaluation / "slice_predictions.csv")
    attention = {row["attention"] for row in slices}
    if tree["config"]["finetune"]["pool"] == "mean":
        assert attention == {""}
        assert "attention" not in tree["per_seed"][0]
        return
    for eye in {row["eye"] for row in slices}:
        weights = [float(row["attention"]) for row in slices if row["eye"] == eye]
        assert sum(weights) == pytest.approx(1, abs=1e-6)
    assert all(0 <= seed["attention"]["epoch"] <= 40 for seed in tree["per_seed"])


def finetuned(folder: Path, seed: int = 0, **settings: Any) -> Any:
    """A fine-tuning of a demo network on a set of eyes."""
    start = open_starting_weights("none", EvalModel(name="vit_demo_patch14", image_size=28))
    data = load_labelled_set(EvalData(path=str(folder), unit=settings.pop("unit", "eye")), 28)
    recipe = Finetune(**{"epochs": 2, "batch": 8, "warmup_epochs": 0.5, **settings})
    model = start.backbone.build(2, 0.0, seed)
    return finetune(model, start.backbone, data, recipe, seed, 0), data


def test_one_seed_pools_the_slices_that_images_alone_would_have_given(tmp_path: Path) -> None:
    folder = eye_volumes(tmp_path / "set")
    # One epoch: scores of eyes may choose another one than scores of images.
    eyes, data = finetuned(folder, epochs=1)
    images, _ = finetuned(folder, unit="image", epochs=1)
    assert images.slices is None
    test = data.parts["test"]
    assert np.array_equal(eyes.slices.probabilities_NC, images.probabilities)
    index = index_units(
        [NamedImage(k, p, None, k[4]) for k, p in zip(test.keys, test.patients, strict=True)], "eye"
    )
    assert np.array_equal(eyes.probabilities, mean_of_logits(eyes.slices.probabilities_NC, index))


def test_attention_gives_the_same_result_twice_and_another_seed_gives_another(tmp_path: Path) -> None:
    folder = eye_volumes(tmp_path / "set", slices=4)
    one, again, other = (finetuned(folder, seed, pool="attention")[0] for seed in (0, 0, 1))
    assert np.array_equal(one.probabilities, again.probabilities)
    assert np.array_equal(one.slices.weights_N, again.slices.weights_N)
    assert not np.array_equal(one.probabilities, other.probabilities)


def test_each_part_is_encoded_once_for_the_attention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []

    def counted(*arguments: Any, **settings: Any) -> Any:
        encoded.append(len(arguments[2]))
        return head_inputs(*arguments, **settings)

    monkeypatch.setattr(finetuning, "head_inputs", counted)
    _, data = finetuned(eye_volumes(tmp_path / "set", slices=2), pool="attention", epochs=1)
    assert encoded == [len(data.parts[name]) for name in ("train", "val", "test")]


def test_a_volume_with_one_slice_has_all_of_the_attention(tmp_path: Path) -> None:
    result, _ = finetuned(eye_volumes(tmp_path / "set", slices=1), pool="attention")
    assert result.slices.weights_N.tolist() == [1.0] * len(result.slices.weights_N)


def test_images_have_no_attention(tmp_path: Path) -> None:
    data = load_labelled_set(EvalData(path=str(eye_volumes(tmp_path / "set"))), 28)
    assert not uses_attention(data, Finetune(pool="attention"))
