from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from timm.models.vision_transformer import VisionTransformer

from retfound_dist.config.schema import EvalData
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.finetune.finetuning import FinetuneResult
from retfound_dist.evaluate.finetune.heatmaps import heat_maps
from retfound_dist.evaluate.finetune.worst_mistakes import MAX_SHOWN, worst_indices, worst_mistakes
from retfound_dist.evaluate.pixels.image_encoding import decode_picture, round_heat_map
from retfound_dist.model.backbones.plain_vit import PlainVit
from retfound_dist.model.mae import encoder_shape
from tests.evaluate.inputs import CLASSES, class_folders

BACKBONE = PlainVit(None, encoder_shape("vit_demo_patch14"), 28)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> LabelledSet:
    root = class_folders(tmp_path_factory.mktemp("mistakes") / "set", each=20)
    return load_labelled_set(EvalData(path=str(root)), 28)


@pytest.fixture(scope="module")
def model() -> VisionTransformer:
    return BACKBONE.build(3)


def outcome(labelled: LabelledSet, sure_of_next_class: list[float]) -> FinetuneResult:
    """The first images are taken for the next class with these probabilities, the others read rightly."""
    labels = labelled.parts["test"].labels
    probabilities = 0.05 + 0.85 * np.eye(3)[labels]
    for place, sure in enumerate(sure_of_next_class):
        row = np.full(3, (1 - sure) / 2)
        row[(labels[place] + 1) % 3] = sure
        probabilities[place] = row
    return FinetuneResult(7, [], 1, probabilities)


def test_wrong_answers_come_by_falling_certainty_and_of_equals_the_first_first() -> None:
    labels = np.array([0, 0, 1, 1, 0])
    probabilities = np.array([[0.3, 0.7], [0.1, 0.9], [0.3, 0.7], [0.7, 0.3], [0.9, 0.1]])
    assert worst_indices(labels, probabilities) == [1, 0, 3]
    assert worst_indices(labels, probabilities, max_images=2) == [1, 0]
    assert worst_indices(probabilities.argmax(1), probabilities) == []


def test_a_mistake_has_its_image_its_answer_and_the_map_of_the_class_it_was_taken_for(
    labelled: LabelledSet, model: VisionTransformer
) -> None:
    test = labelled.parts["test"]
    tree = worst_mistakes(model, BACKBONE, labelled, outcome(labelled, [0.5, 0.8, 0.61234]))
    assert (tree["seed"], tree["wrong"]) == (7, 3)
    assert [row["key"] for row in tree["images"]] == [test.keys[i] for i in (1, 2, 0)]
    first = tree["images"][0]
    label = int(test.labels[1])
    taken_for = (label + 1) % 3
    assert (first["label"], first["predicted"]) == (CLASSES[label], CLASSES[taken_for])
    assert first["probabilities"][CLASSES[taken_for]] == 0.8
    assert tree["images"][1]["probabilities"][tree["images"][1]["predicted"]] == 0.6123
    assert np.abs(decode_picture(first["image"]).astype(int) - test.images[1]).mean() < 12
    maps = heat_maps(model, BACKBONE, [test.images[1]], [taken_for])
    np.testing.assert_allclose(first["gradient"], round_heat_map(maps.gradient[0]), rtol=1e-2, atol=1e-6)
    np.testing.assert_allclose(first["rollout"], round_heat_map(maps.rollout[0]), rtol=1e-2)
    other = heat_maps(model, BACKBONE, [test.images[1]], [label])
    assert not np.allclose(other.gradient[0], maps.gradient[0], rtol=1e-2)


def test_all_mistakes_are_counted_and_only_the_first_are_shown(
    labelled: LabelledSet, model: VisionTransformer
) -> None:
    tree = worst_mistakes(model, BACKBONE, labelled, outcome(labelled, [0.9] * (MAX_SHOWN + 2)))
    assert tree["wrong"] == MAX_SHOWN + 2
    assert len(tree["images"]) == MAX_SHOWN


def test_where_nothing_is_wrong_nothing_is_shown(labelled: LabelledSet, model: VisionTransformer) -> None:
    right = outcome(labelled, [])
    assert worst_mistakes(model, BACKBONE, labelled, right) == {"seed": 7, "wrong": 0, "images": []}
    assert worst_mistakes(model, BACKBONE, labelled, replace(right, seed=1))["seed"] == 1
