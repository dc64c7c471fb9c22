"""What a plan knows of the shards."""

import pytest

from retfound_dist.cockpit.datafacts import SHARD_BYTES, assumed_data


@pytest.mark.parametrize(("samples", "image_bytes"), [(182_980, 5e4), (1, 5e4), (1_280, 5e4), (3, 2e8)])
def test_assumed_shards_hold_all_images_and_no_more_than_a_shard_does(samples: int, image_bytes: float) -> None:
    data = assumed_data(samples, image_bytes, "assumed")
    assert data.samples == samples
    assert data.bytes == pytest.approx(samples * image_bytes)
    assert len(data.counts) == len(data.sizes)
    assert min(data.counts) > 0
    assert max(data.sizes) <= max(SHARD_BYTES, image_bytes)
