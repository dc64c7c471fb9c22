"""One scan becomes one sample with all its digests, or a reason that says why it is left out."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.config.schema import PackImage
from retfound_dist.errors import DataError
from retfound_dist.formats.shard_set import image_digest
from shards.images.scan import Pixels, Scan
from shards.write.packed_sample import MEASURE_ONE_IN, PackedSample, Skipped, make_sample
from tests.shards.pack_inputs import scan_pixels, write_image


def scan_of(read: Callable[[], bytes | Pixels], key: str = "AMD_1") -> Scan:
    return Scan(key=key, origin=f"{key}.png", source="clinic", read=read, label="AMD", patient="p7", slice=3)


def sample_of(scan: Scan, image: PackImage | None = None) -> PackedSample:
    sample = make_sample(scan, image=image or PackImage())
    assert isinstance(sample, PackedSample), sample
    return sample


def test_a_sample_is_two_members_of_a_tar_that_hold_the_image_and_what_is_known_of_it() -> None:
    pixels = scan_pixels(3, 96, 128)
    sample = sample_of(scan_of(lambda: pixels), PackImage(format="png"))
    with tarfile.open(fileobj=io.BytesIO(sample.members + bytes(1024))) as tar:
        image, fields = (tar.extractfile(f"AMD_1.{end}").read() for end in ("png", "json"))  # type: ignore[union-attr]
    assert (np.asarray(Image.open(io.BytesIO(image))) == pixels).all()
    known = json.loads(fields)
    assert (known["label"], known["patient"], known["slice"]) == ("AMD", "p7", 3)
    assert (known["height"], known["width"]) == (96, 128)
    assert (sample.image_bytes, sample.json_bytes) == (len(image), len(fields))
    assert sample.image_sha256 == image_digest(image)


def test_a_grey_jpeg_keeps_its_compressed_picture_and_its_loss_is_not_measured(tmp_path: Path) -> None:
    data = write_image(tmp_path / "1.jpg", 5, quality=80).read_bytes()
    sample = sample_of(scan_of(lambda: data))
    assert sample.as_is
    assert sample.encoding_error is None
    assert data[-200:] in sample.members


def test_one_in_eight_encoded_images_is_measured_whoever_packs_it() -> None:
    pixels = scan_pixels(3)
    measured = [sample_of(scan_of(lambda: pixels, f"k{n}")).encoding_error is not None for n in range(160)]
    assert 160 / MEASURE_ONE_IN / 2 < sum(measured) < 160 / MEASURE_ONE_IN * 2
    assert measured == [
        sample_of(scan_of(lambda: pixels, f"k{n}")).encoding_error is not None for n in range(160)
    ]


def fails(error: Exception) -> Callable[[], bytes]:
    def read() -> bytes:
        raise error

    return read


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DataError("is cut short"), "is cut short"),
        (OSError(13, "Permission denied"), "cannot be read (Permission denied)"),
        (ZeroDivisionError("one\ntwo"), "cannot be read (one)"),
        (KeyError(), "cannot be read (KeyError)"),
    ],
)
def test_whatever_reading_raises_is_one_line_about_this_scan(error: Exception, reason: str) -> None:
    skipped = make_sample(scan_of(fails(error)), image=PackImage())
    assert skipped == Skipped("AMD_1", "AMD_1.png", reason)
    assert str(skipped) == f"AMD_1.png {reason}"
    assert skipped.is_bad


def test_a_suspect_is_kept_unless_it_is_to_be_left_out_and_then_counts_as_no_fault() -> None:
    mask = np.repeat(np.array([0, 80, 160, 255], np.uint8), 24)[:, None].repeat(128, 1)
    assert sample_of(scan_of(lambda: mask)).suspect == "mask"
    skipped = make_sample(scan_of(lambda: mask), image=PackImage(leave_out_suspects=("mask",)))
    assert isinstance(skipped, Skipped)
    assert skipped.reason == "looks like a mask (few uniform levels)"
    assert not skipped.is_bad


def test_a_copy_of_another_picture_is_no_bad_image_and_a_row_leads_back_to_its_scan() -> None:
    copy = Skipped("b", "b.png", "is the same picture as a")
    assert (copy.is_duplicate, copy.is_bad) == (True, False)
    assert Skipped.from_row({**copy.to_row(), "by": "a later version"}) == copy
