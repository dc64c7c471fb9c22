"""Pages and lines name what was scored."""

from __future__ import annotations

from retfound_dist.evaluate.scores.unit_wording import (
    describe_pooling,
    describe_test_part,
    train_images,
    unit_noun,
)

IMAGES = {"split": {"train": 90, "test": 30}}
EYES = {
    "split": {"train": 9, "test": 3, "unit": "eye", "images": {"train": 90, "test": 1200}},
    "config": {"finetune": {"pool": "attention"}},
}


def test_images_are_named_as_before() -> None:
    assert unit_noun(IMAGES) == "images"
    assert describe_test_part(IMAGES) == "30 test images"
    assert describe_pooling(IMAGES) == ""
    assert train_images(IMAGES) == 90


def test_eyes_are_named_with_the_number_of_their_images() -> None:
    assert unit_noun(EYES) == "eyes"
    assert describe_test_part(EYES) == "3 test eyes (1,200 images)"
    assert "attention head weighs the images of each eye" in describe_pooling(EYES)
    assert train_images(EYES) == 90


def test_the_pooling_is_that_of_the_recipe_that_val_chose() -> None:
    assert "mean of the logits" in describe_pooling({**EYES, "tuning": {"recipe": {"pool": "mean"}}})
    assert "attention head" in describe_pooling({**EYES, "tuning": {"recipe": {"base_lr": 1e-3}}})
