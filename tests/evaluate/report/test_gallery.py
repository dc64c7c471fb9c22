"""Which rows a page shows with pictures, and what stands in their tiles."""

from __future__ import annotations

import numpy as np

from retfound_dist.evaluate.pixels.image_encoding import data_uri, encode_picture
from retfound_dist.evaluate.report.gallery import (
    MAX_MISTAKES,
    MAX_ROWS,
    choose_rows,
    mistake_groups,
    reconstruction_blocks,
)
from tests.evaluate.made import made_pictures, predictions


def test_of_many_rows_the_first_the_last_and_some_between_have_pictures() -> None:
    few = list(choose_rows({f"row{i}": i for i in range(20)}).values())
    assert len(few) == MAX_ROWS
    assert (few[0], few[-1]) == (0, 19)
    assert max(np.diff(few)) <= 4
    assert list(choose_rows({"a": 1, "b": 2})) == ["a", "b"]


def test_a_block_has_the_image_its_mask_and_what_each_row_s_checkpoint_made_of_it() -> None:
    rows = {name: predictions(0, pictures=made_pictures(0)) for name in ("one", "two")}
    held = rows["one"].pictures["reconstructions"]
    blocks = reconstruction_blocks(rows)
    assert [block["label"] for block in blocks] == held["labels"]
    first, *others = blocks[0]["columns"]
    assert first["tiles"] == [
        ("original", data_uri(held["original"][0])),
        ("masked", data_uri(held["masked"][0])),
    ]
    assert [column["name"] for column in others] == ["one", "two"]
    last = held["checkpoints"][-1]
    for column in others:
        assert [picture for _, picture in column["tiles"]] == [
            data_uri(last["reconstruction"][0]),
            data_uri(last["difference"][0]),
        ]


def test_rows_with_other_masks_have_blocks_of_their_own() -> None:
    rows = {f"seed {seed}": predictions(seed, pictures=made_pictures(seed)) for seed in (0, 1)}
    images = len(rows["seed 0"].pictures["reconstructions"]["labels"])
    assert len(reconstruction_blocks(rows)) == images
    rows["seed 1"].pictures["reconstructions"]["masked"][0] = encode_picture(np.zeros((56, 56), np.uint8))
    blocks = reconstruction_blocks(rows)
    assert len(blocks) == 2 * images
    assert reconstruction_blocks({"none": predictions(0)}) == []


def test_a_mistake_shows_its_likeliest_classes_and_always_the_true_one() -> None:
    pictures = made_pictures(0)
    mistake = pictures["mistakes"]["images"][0]
    classes = {"A": 0.4, "B": 0.3, "C": 0.2, "D": 0.07, "E": 0.03}
    pictures["mistakes"]["images"] = [{**mistake, "label": "E", "predicted": "A", "probabilities": classes}]
    (group,) = mistake_groups({"": predictions(0, pictures=pictures)})
    (card,) = group["cards"]
    assert [(bar["name"], bar["true"]) for bar in card["bars"]] == [
        ("A", False),
        ("B", False),
        ("C", False),
        ("E", True),
    ]


def test_of_several_rows_each_shows_a_few_mistakes_and_counts_all() -> None:
    row = predictions(0, pictures=made_pictures(0, mistakes=6))
    alone, several = mistake_groups({"": row}), mistake_groups({"a": row, "b": row})
    assert [len(group["cards"]) for group in alone] == [6]
    assert [len(group["cards"]) for group in several] == [MAX_MISTAKES, MAX_MISTAKES]
    assert {group["wrong"] for group in [*alone, *several]} == {row.pictures["mistakes"]["wrong"]}
