"""What a plan knows of the shards."""

from typing import Any

import pytest

from retfound_dist.plan.data_facts import SHARD_BYTES, assumed_data, count_patients


@pytest.mark.parametrize(("samples", "image_bytes"), [(182_980, 5e4), (1, 5e4), (1_280, 5e4), (3, 2e8)])
def test_assumed_shards_hold_all_images_and_no_more_than_a_shard_does(
    samples: int, image_bytes: float
) -> None:
    data = assumed_data(samples, image_bytes, "assumed")
    assert data.samples == samples
    assert data.bytes == pytest.approx(samples * image_bytes)
    assert len(data.counts) == len(data.sizes)
    assert min(data.counts) > 0
    assert max(data.sizes) <= max(SHARD_BYTES, image_bytes)


def source(samples: int, **more: Any) -> dict[str, Any]:
    """A source's counts in a manifest."""
    return {"samples": samples, "patients": 0, "volumes": 0, "splits": {}, **more}


@pytest.mark.parametrize(
    ("sources", "part", "expected"),
    [
        ({}, "all", (None, None)),
        ({"a": source(9, patients=3, volumes=4)}, "all", (3, 4)),
        ({"a": source(9, patients=3, volumes=4), "b": source(5, patients=2)}, "all", (5, None)),
        ({"a": source(9, patients=3), "b": source(5)}, "all", (None, None)),
        ({"a": source(9, patients=3, patient_known=9)}, "all", (3, None)),
        ({"a": source(9, patients=3, patient_known=4)}, "all", (8, None)),
        ({"a": source(9, patients=3, splits={"train": source(6, patients=2, volumes=5)})}, "train", (2, 5)),
        ({"a": source(9, patients=3, splits={"train": source(6, patients=2)})}, "val", (None, None)),
        ({"a": source(9, patients=3, splits={"train": source(6, patients=2)}), "b": "odd"}, "all", (3, None)),
    ],
)
def test_people_behind_a_part_are_counted_where_every_source_knows_them(
    sources: dict[str, Any], part: str, expected: tuple[int | None, int | None]
) -> None:
    """At most so many: an image whose patient is not known may be of one more."""
    assert count_patients(sources, part) == expected
