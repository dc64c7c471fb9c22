"""Patches of `model/mae.py`: cut, gathered, normalised, and put together again."""

import math

import pytest
import torch

from retfound_dist.model import mae


def test_patches_are_cut_row_by_row_and_put_together_again() -> None:
    """A 4 x 6 image of 2 x 2 patches: pixel (r, c) is 10 r + c, other channels are 100 and 200 more."""
    grey = (10 * torch.arange(4)[:, None] + torch.arange(6))[None, None]
    image = torch.cat([grey, grey + 100, grey + 200], dim=1)
    patches = mae.patchify(image, 2)
    assert patches.shape == (1, 6, 4, 3)
    assert patches[0, :, :, 0].tolist() == [
        [0, 1, 10, 11], [2, 3, 12, 13], [4, 5, 14, 15], [20, 21, 30, 31], [22, 23, 32, 33], [24, 25, 34, 35],
    ]  # fmt: skip
    assert torch.equal(patches[..., 1], patches[..., 0] + 100)
    two = torch.cat([image, image + 1000])
    again = mae.unpatchify(mae.patchify(two, 2).flatten(2), 2, (2, 3))
    assert torch.equal(again, two)


def test_rows_are_taken_whatever_they_hold() -> None:
    ids = torch.tensor([[2, 0], [1, 1]])
    flat = torch.tensor([[[1], [2], [3]], [[4], [5], [6]]])
    assert mae.gather_rows(flat, ids)[..., 0].tolist() == [[3, 1], [5, 5]]
    wide = torch.arange(2 * 3 * 4 * 2).reshape(2, 3, 4, 2)
    assert torch.equal(mae.gather_rows(wide, ids), torch.stack([wide[0, [2, 0]], wide[1, [1, 1]]]))


def test_values_are_normalised_as_imagenets_channels() -> None:
    rgb = torch.tensor([[[[0, 128, 255], [255, 0, 64]]]], dtype=torch.uint8)
    values = [
        (v / 255 - m) / s
        for row in rgb[0, 0].tolist()
        for v, m, s in zip(row, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)
    ]
    found = mae.normalise(rgb)
    assert found.shape == (1, 1, 6)
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == pytest.approx(values, abs=1e-6)
    grey = torch.tensor([[[[0], [200]]]], dtype=torch.uint8)
    assert torch.equal(mae.normalise(grey), mae.normalise(grey.expand(-1, -1, -1, 3)))


def test_pixels_come_back_from_normalised_values_and_are_cut_to_a_byte() -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16).contiguous()
    mean, std = (torch.tensor(v)[:, None, None] for v in (mae.IMAGENET_MEAN, mae.IMAGENET_STD))
    normed = (images.float() / 255 - mean) / std
    assert torch.equal(mae.to_pixels(normed), images)
    assert torch.equal(mae.to_pixels(normed + 0.4 / 255 / std), images)  # rounded
    assert mae.to_pixels(torch.full((1, 3, 1, 2), 99.0)).flatten().tolist() == [255] * 6
    assert mae.to_pixels(torch.full((1, 3, 1, 2), -99.0)).flatten().tolist() == [0] * 6


def test_a_target_patch_is_less_its_mean_over_its_unbiased_spread() -> None:
    """1, 2, 3, 6: mean 3, variance (4 + 1 + 0 + 9) / 3; a patch of one value becomes 0."""
    target = torch.tensor([[[1.0, 2, 3, 6], [5, 5, 5, 5]]])
    mean, var = mae.patch_statistics(target)
    assert (mean.shape, var.shape) == ((1, 2, 1), (1, 2, 1))
    assert mean.flatten().tolist() == [3, 5]
    assert var.flatten().tolist() == pytest.approx([14 / 3, 0])
    spread = math.sqrt(14 / 3 + 1e-6)
    assert mae.normalise_patches(target)[0, 0].tolist() == pytest.approx(
        [-2 / spread, -1 / spread, 0, 3 / spread]
    )
    assert not mae.normalise_patches(target)[0, 1].any()
    faint = torch.tensor([[[0.0, 1e-3, 0, 1e-3]]])  # variance 1/3 of 1e-6: the small number added counts
    assert mae.normalise_patches(faint)[0, 0].tolist() == pytest.approx(
        [v * 5e-4 / math.sqrt(4e-6 / 3) for v in (-1, 1, -1, 1)]
    )
