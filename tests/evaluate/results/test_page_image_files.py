"""pictures.json as a page reads it: what no page can show is one line that names the place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from retfound_dist.errors import RecordError
from retfound_dist.evaluate.results.page_image_files import PicturesFile
from retfound_dist.records import json_reader

HEAT = [[0.1, 0.2], [0.3, 0.4]]


MISTAKE = {"key": "k", "label": "A", "predicted": "B", "probabilities": {"A": 0.1}, "image": "AAAA",
           "rollout": HEAT, "gradient": HEAT}  # fmt: skip


SEEN = {"labels": ["A"], "original": ["x"], "masked": ["x"],
        "checkpoints": [{"step": 3, "reconstruction": ["x"], "difference": []}]}  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ({"mistakes": "none"}, "mistakes is 'none'"),
        ({"mistakes": {"seed": 0, "wrong": 1}}, "mistakes.images is missing"),
        (
            {"mistakes": {"seed": 0, "wrong": 1, "images": [MISTAKE]}},
            r"images\[0\].image is 'AAAA'.*not a picture",
        ),
        ({"features": {"points": [[1.0]], "explained": [0.5, 0.5]}}, r"features.points\[0\] is a list"),
        ({"reconstructions": {**SEEN, "checkpoints": []}}, "reconstructions.checkpoints is a list"),
        ({"reconstructions": SEEN}, "reconstructions is an object: .*different lengths"),
    ],
)
def test_pictures_that_no_page_can_show_are_one_line(tree: dict[str, Any], why: str) -> None:
    with pytest.raises(RecordError, match=rf"^p.json is damaged: line 1: .*{why}") as caught:
        json_reader.parse(json.dumps(tree).encode(), PicturesFile, "p.json", "evaluate again")
    assert "\n" not in str(caught.value)


def test_pictures_that_could_not_be_had_are_none() -> None:
    held = {"mistakes": None, "features": None, "reconstructions": None, "of_the_future": 1}
    assert json_reader.parse(json.dumps(held).encode(), PicturesFile, "p.json", "") == held
